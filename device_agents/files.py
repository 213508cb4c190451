"""Files that are either old or new, never half written, whatever happens to the power."""

import contextlib
import json
import os


def write(path, data, durable=True):
    """Put bytes into a file that only its owner can read, in one step.

    Args:
        durable: return only when it would survive a loss of power.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file is still there.
    """
    new = path + ".new"
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        remove(new)
        raise
    if durable:
        _sync_folder(os.path.dirname(path))


def _sync_folder(folder):
    with contextlib.suppress(OSError):  # not every system can; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path, value):
    """``write`` a JSON document."""
    write(path, json.dumps(value, allow_nan=False).encode("utf-8"))


def read_json(path):
    """The object in a JSON file; an empty one where there is no such file, or it is damaged."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def remove(path):
    """Delete a file, if it is there."""
    with contextlib.suppress(OSError):
        os.remove(path)
