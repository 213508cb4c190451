"""The Dockerfile's steps without an engine: in a bare folder, its RUN lines; then its server and its agent are started.

    python3 .ci/docker_steps.py

What a container has and a machine does not is left out: users, and the folders that only they need. ``TORCH_INDEX``
replaces the build argument of that name.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
PORT = "18800"
ROOTS = ("/opt", "/src", "/home/ofa")  # the image's folders that its steps write to
OURS = ("useradd", "mkdir")  # done here, or for nobody
START_S = 60


def instructions(text):
    """``[(name, arguments)]`` of a Dockerfile, continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def placed(words, root):
    """An image's paths as they are below a folder here."""
    return re.sub(r"(?<![\w./])({})(?=[/\s\"']|$)".format("|".join(ROOTS)), str(root) + r"\1", words)


def run_steps(steps, root):
    """All RUN lines, in order; returns their number."""
    source = root / "src"
    ignored = shutil.ignore_patterns(".git", ".ofa", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, source, ignore=ignored)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_TARGET", "PYTHONPATH"))}
    arguments = dict(words.split("=", 1) for name, words in steps if name == "ARG")
    environment.update({name: os.environ.get(name, value) for name, value in arguments.items()})
    lines = [words for name, words in steps if name == "RUN" and not words.startswith(OURS)]
    for line in lines:
        # the cache is spared in an image for its size; here it spares a download
        command = (
            placed(line, root).replace("--no-cache-dir ", "").replace("python -m venv", sys.executable + " -m venv")
        )
        print("RUN", line, flush=True)
        subprocess.run(command, shell=True, check=True, cwd=source, env=environment)
    return len(lines)


def last(steps, name, stage):
    """The words of a stage's last instruction of a name, as the list that they are."""
    inside, found = False, None
    for word, words in steps:
        if word == "FROM":
            inside = words.endswith(" AS " + stage)
        elif inside and word == name:
            found = words
    return json.loads(found[found.index("[") :])


def check_server(steps, root):
    """Start the server as the image does, and ask as its HEALTHCHECK does."""
    binaries = str(root / "opt/ofa/bin")
    environment = dict(
        os.environ, PATH=binaries + os.pathsep + os.environ["PATH"], OFA_WORKSPACE=str(root / "workspace")
    )
    environment.pop("PYTHONPATH", None)
    command = last(steps, "ENTRYPOINT", "server") + last(steps, "CMD", "server") + ["--port", PORT]
    check = [word.replace("8800", PORT) for word in last(steps, "HEALTHCHECK", "server")]
    server = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + START_S
        while subprocess.run(check, cwd=root, env=environment, stderr=subprocess.DEVNULL).returncode:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server is not healthy"
            time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=5) as answer:
            assert json.load(answer) == {"status": "ok"}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def check_agent(steps, root):
    """The agent starts, and finds its runtime."""
    python, archive = (placed(word, root) for word in last(steps, "ENTRYPOINT", "agent"))
    subprocess.run([python, archive, "--version"], cwd=root, check=True)
    subprocess.run([python, "-c", "import onnxruntime"], cwd=root, check=True)


def main():
    """Everything, in a folder that is deleted afterwards."""
    steps = instructions((ROOT / "Dockerfile").read_text())
    with tempfile.TemporaryDirectory(prefix="ofa-docker-") as folder:
        root = Path(folder)
        began = time.monotonic()
        count = run_steps(steps, root)
        assert count >= 5, "fewer RUN lines than there are: the file is not read right"
        check_server(steps, root)
        check_agent(steps, root)
        print(f"docker: {count} steps, the server is healthy, the agent starts: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
