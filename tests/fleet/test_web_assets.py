"""The browser agent's files as a server serves them, and where ONNX Runtime Web comes from."""

import base64
import hashlib
import io
import json
import tarfile

import pytest
import requests

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.fleet import web_assets
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer


@pytest.fixture
def get(workspace):
    """``get(path)``: an answer of a server."""
    server = LocalServer(create_app(workspace.store, "token", workspace.root / "blobs", workspace=workspace.root))
    yield lambda path: requests.get(server.url + path, timeout=30)
    server.close()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``package(files)``: a package with such files as npm would publish it, and as the lock file knows it."""

    def make(files):
        path = tmp_path / "package.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        monkeypatch.setattr(web_assets, "locked", lambda: web_assets.Locked("1.2.3", f"sha512-{digest}"))
        return path

    return make


FILES = {f"package/dist/{name}": name.encode() for name in web_assets.NEEDED}


def test_every_file_isolates_the_page_and_allows_this_server_alone(get, workspace, package):
    web_assets.install(workspace.root, package(FILES))
    media = {
        "": "text/html",
        "/agent.css": "text/css",
        "/worker.js": "text/javascript",
        "/ort/ort.wasm.min.mjs": "text/javascript",
        "/ort/ort-wasm-simd-threaded.wasm": "application/wasm",
    }
    for path, kind in media.items():
        answer = get(f"/agent{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].split(";")[0] == kind
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")


@pytest.mark.parametrize("path", ["package.json", "..%2Fagent.py", "ort/ort.webgpu.min.mjs", "ort/..%2Fofa.db", "x"])
def test_nothing_else_is_served(get, workspace, package, path):
    web_assets.install(workspace.root, package(FILES))
    assert get(f"/agent/{path}").status_code == 404


def test_without_the_runtime_the_server_says_what_to_run(get):
    answer = get("/agent/ort/ort.wasm.min.mjs")
    assert (answer.status_code, "ofa-deploy agent web-assets" in answer.json()["detail"]) == (404, True)


def test_a_package_is_installed_from_a_file(workspace, package):
    more = {
        "package/dist/ort.webgpu.min.mjs": b"gpu",
        "package/dist/../../../evil": b"x",
        "package/dist/other.js": b"y",
    }
    assert web_assets.missing(workspace.root)
    files = web_assets.install(workspace.root, package({**FILES, **more}))
    assert not web_assets.missing(workspace.root)
    assert {path.name for path in files} == {*web_assets.NEEDED, "ort.webgpu.min.mjs"}
    assert {path.name for path in web_assets.assets_folder(workspace.root).iterdir()} == {path.name for path in files}


def test_a_package_that_is_another_one_is_refused(workspace, package, tmp_path):
    path = package(FILES)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"is not onnxruntime-web 1\.2\.3 .* npm pack onnxruntime-web@1\.2\.3"):
        web_assets.install(workspace.root, path)
    with pytest.raises(UsageError, match="No such file"):
        web_assets.install(workspace.root, tmp_path / "nothing.tgz")
    with pytest.raises(OfaDeployError, match="has no ort"):
        web_assets.install(workspace.root, package({}))


def test_without_npm_the_remedy_is_told(workspace, monkeypatch, tmp_path, ofa_deploy):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = ofa_deploy("agent", "web-assets", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "npm pack" in done.stderr
    assert "--from onnxruntime-web-" in done.stderr


def test_the_lock_file_pins_every_package_and_names_no_registry():
    text = (web_assets.WEB / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert f"node_modules/{web_assets.PACKAGE}" in packages
    assert all("integrity" in package for name, package in packages.items() if name)
    assert "resolved" not in text
    assert packages[""]["dependencies"] == {web_assets.PACKAGE: web_assets.locked().version}


def test_registering_a_browser_prints_a_link(tmp_path, ofa_deploy):
    done = ofa_deploy("device", "register", "phone-1", "--profile", "browser", cwd=tmp_path)
    assert done.returncode == 0
    assert "https://HOST:8800/agent#" in done.stdout
    assert "pyz" not in done.stdout
    assert "ofa-deploy serve" in done.stdout
    assert "ofa-deploy agent web-assets" in done.stdout
