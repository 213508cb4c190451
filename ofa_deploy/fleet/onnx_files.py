"""Whether an ONNX file takes weights from other files, found by walking its fields, without loading it.

Such a file would make the device that runs it read whatever path it names. The field numbers are those of onnx.proto;
how fields are laid out is the protocol buffers' encoding. What is no protocol buffer is let through: no runtime reads
it, and the device that tries says so.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ofa_deploy.errors import UsageError

FIELDS_AT_MOST = 2_000_000  # a network of 1000 nodes has some ten thousand
ELSEWHERE = (13, 14)  # a tensor's external_data and data_location
# message -> field -> message inside it; whatever can hold a tensor
INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


class _NotProtobuf(Exception):
    """The bytes are not a message."""


def refuse_other_files(path: Path) -> None:
    """Check an ONNX file.

    Raises:
        UsageError: it takes weights from other files, or is so finely divided that checking it would take long.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _walk(data)
        except _NotProtobuf:
            return


def _walk(data: mmap.mmap) -> None:
    left, count = [("model", 0, len(data))], 0
    while left:
        kind, start, end = left.pop()
        for number, wire, begin, stop in _fields(data, start, end):
            count += 1
            if count > FIELDS_AT_MOST:
                raise UsageError(f"the model has more than {FIELDS_AT_MOST} fields")
            if kind == "tensor" and number in ELSEWHERE and (wire == LENGTH or begin):
                raise UsageError("the model takes weights from other files; save it with its weights inside")
            if wire == LENGTH and number in INSIDE[kind]:
                left.append((INSIDE[kind][number], begin, stop))


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and begin and end of the content of every field; of a varint its value and the end."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            begin, stop = _varint(data, at, end)
        elif wire == LENGTH:
            size, begin = _varint(data, at, end)
            stop = begin + size
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            begin, stop = at, at + (8 if wire == EIGHT_BYTES else 4)
        else:
            raise _NotProtobuf
        if stop > end:
            raise _NotProtobuf
        yield number, wire, begin, stop
        at = stop


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _NotProtobuf
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _NotProtobuf
