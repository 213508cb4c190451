"""What a worker is at, for the agent to read when it has crashed or hangs.

A small file, not the pipe: a worker moves on hundreds of times a second, and nobody should wake up for that while it
measures.
"""

import contextlib


class Marker:
    """The worker's hand on the file."""

    def __init__(self, path):
        self._moves = 0
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        except OSError:
            self._file = None

    def __call__(self, place):
        """Note that the worker is at an item from now on, by its place in the run; -1 for none."""
        self._moves += 1
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk
                self._file.seek(0)
                self._file.write(b"%-12d %-6d" % (self._moves, place))


def read_marker(path):
    """How often the worker has moved on, and the place where it is now; -1 for none."""
    try:
        with open(path, "rb") as file:
            moves, place = file.read().split()
            return int(moves), int(place)
    except (OSError, ValueError):
        return 0, -1
