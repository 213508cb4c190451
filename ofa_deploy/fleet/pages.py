"""The dashboard's files, the JSON they show, the API's documentation, the metrics and the health check."""

from __future__ import annotations

import mimetypes
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from ofa_deploy import __version__
from ofa_deploy.fleet.heatmap import heat_map, shown_row
from ofa_deploy.fleet.metrics import Metrics
from ofa_deploy.fleet.reports import Reports
from ofa_deploy.fleet.service import Missing
from ofa_deploy.fleet.status import device_statuses
from ofa_deploy.store import Store

HERE = Path(__file__).parent / "dashboard"
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")  # the package fastapi-offline carries them
JOBS_SHOWN = 50
Name = Annotated[str, InPath(pattern=r"^[^\x00]{1,1000}$")]
Hash = Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")]

# Styles may be inline for the reports' sake: a report is one file, and is shown in a frame that inherits this policy.
# Nothing that comes from data ever becomes markup in the page, and scripts come from this server's files alone.
PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-src blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DATA_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def add_pages(app: FastAPI, store: Store, metrics: Metrics, workspace: Path | None) -> None:
    """Add the routes that people's browsers and Prometheus ask for.

    Args:
        workspace: where audits and bundles lie; without it there are no reports.
    """
    _static_routes(app)
    _device_routes(app, store)
    _report_routes(app, Reports(workspace))

    @app.get("/healthz", responses={503: {"description": "The database does not answer."}})
    def healthz() -> JSONResponse:
        """Whether this server can do its work: 503 where its database does not answer."""
        try:
            store.overview.reachable()
        except SQLAlchemyError:
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_model=None)
    def read_metrics() -> Response:
        """The fleet in numbers, in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _static_routes(app: FastAPI) -> None:
    swagger = Path(str(files("fastapi_offline"))) / "static"
    known = {path.name: path for path in HERE.iterdir()} | {name: swagger / name for name in SWAGGER}

    def page(name: str) -> FileResponse:
        media = mimetypes.guess_type(name)[0]
        return FileResponse(known[name], media_type=media, headers={**HEADERS, "Content-Security-Policy": PAGE_POLICY})

    @app.get("/", include_in_schema=False)
    def dashboard() -> FileResponse:
        return page("index.html")

    @app.get("/docs", include_in_schema=False)
    def documentation() -> FileResponse:
        return page("docs.html")

    @app.get("/dashboard/{file}", include_in_schema=False)
    def dashboard_file(file: str) -> FileResponse:
        if file not in known:
            raise Missing(f"there is no file {file[:100]} in the dashboard")
        return page(file)


def _device_routes(app: FastAPI, store: Store) -> None:
    @app.get("/api/overview")
    def overview() -> dict[str, object]:
        """All devices with their queues and what they are doing, and the newest jobs."""
        queues, now = store.overview.queues(), datetime.now(UTC)
        runs = {run.device: vars(run) for run in store.overview.running()}
        devices = [
            {**vars(status), "queue": queues.get(status.name, {}), "run": runs.get(status.name)}
            for status in device_statuses(store.overview.devices(), now)
        ]
        return {
            "version": __version__,
            "now": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "devices": devices,
            "active_jobs": store.overview.active_jobs(),
            "jobs": [vars(job) for job in store.overview.jobs(JOBS_SHOWN)],
        }

    @app.get("/api/devices/{name}/table")
    def table(name: Name, condition: Hash = "") -> dict[str, object]:
        """A device's newest measurements under one condition (by its ``hash``; default: the newest)."""
        conditions = store.overview.conditions(name)
        shown = next((c for c in conditions if not condition or c.hash == condition), None)
        if shown is None:
            raise Missing(f"nothing was measured on {name[:100]}" + (" under that condition" if condition else ""))
        rows = store.overview.rows(name, shown.hash)
        return {
            "device": name,
            "condition": vars(shown),
            "conditions": [vars(one) for one in conditions],
            "blocks": heat_map(row for row in rows if row.kind == "op").to_json(),
            "networks": [shown_row(row) for row in sorted(rows, key=lambda row: row.p50) if row.kind == "network"],
        }


def _report_routes(app: FastAPI, reports: Reports) -> None:
    @app.get("/api/reports")
    def listed() -> list[dict[str, object]]:
        """The reports of audits and bundles in the server's workspace, newest first."""
        return [vars(report) for report in reports.listed()]

    @app.get("/api/reports/{kind}/{path:path}", responses={200: {"content": {"text/html": {}}}}, response_model=None)
    def report(kind: str, path: str) -> FileResponse:
        """One of them as a page."""
        page = reports.page(kind, path)
        if page is None:
            raise Missing(f"there is no report {path[:200]} among the {kind[:100]}")
        return FileResponse(page, media_type="text/html", headers={**HEADERS, "Content-Security-Policy": DATA_POLICY})
