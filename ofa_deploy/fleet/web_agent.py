"""The browser agent's files: a page that measures in the browser that opens it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from ofa_deploy.fleet.pages import HEADERS
from ofa_deploy.fleet.service import Missing
from ofa_deploy.fleet.web_assets import FOR_WEBGPU, INSTALL, NEEDED, WEB, assets_folder

MEDIA = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}
# WebAssembly needs 'wasm-unsafe-eval'; nothing else is allowed that does not come from this server.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ISOLATED = {  # so that WebAssembly has threads, and the timer its finest resolution
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_web_agent(app: FastAPI, workspace: Path | None) -> None:
    """Add the routes of the page.

    Args:
        workspace: where ONNX Runtime Web was installed by ``ofa-deploy agent web-assets``.
    """
    known = {path.name: path for path in WEB.iterdir() if path.suffix in MEDIA}

    @app.get("/agent", include_in_schema=False)
    def page() -> FileResponse:
        return _file(known["index.html"])

    @app.get("/agent/{file}", include_in_schema=False)
    def page_file(file: str) -> FileResponse:
        if file not in known:
            raise Missing(f"there is no file {file[:100]} of the browser agent")
        return _file(known[file])

    @app.api_route("/agent/ort/{file}", methods=["GET", "HEAD"], include_in_schema=False)
    def runtime_file(file: str) -> FileResponse:
        path = assets_folder(workspace) / file if workspace and file in (*NEEDED, *FOR_WEBGPU) else None
        if path is None or not path.is_file():
            raise Missing(f"ONNX Runtime Web is not installed in this server's workspace: {INSTALL}")
        return _file(path)


def _file(path: Path) -> FileResponse:
    headers = {**HEADERS, **ISOLATED, "Content-Security-Policy": POLICY}
    return FileResponse(path, media_type=MEDIA[path.suffix], headers=headers)
