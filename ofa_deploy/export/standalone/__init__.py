"""The program that travels in bundles as ``infer.py``: it runs the bundle's model with its runtime and Pillow alone."""

from pathlib import Path

from ofa_deploy import pixels

_IMPORT = "from ofa_deploy.pixels import read\n"


def program(runtime: str) -> bytes:
    """The text of ``infer.py`` for a runtime, ``onnxruntime`` or ``openvino``: the source of ``pixels`` and then the
    program that imports it here, so that it is one file and needs nothing of ours."""
    title, text = Path(__file__).with_name("infer.py").read_text("utf-8").split("\n\n", 1)
    _, source = Path(pixels.__file__).read_text("utf-8").split('"""\n\n', 1)
    text = text.replace(_IMPORT, "").replace('RUNTIME = "onnxruntime"', f'RUNTIME = "{runtime}"')
    return f"{title.replace('onnxruntime', runtime)}\n\n{source}\n\n{text}".encode()
