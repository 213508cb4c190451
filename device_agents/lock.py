"""One measurement at a time on a machine: two at once spoil both."""

import contextlib
import os
import time

try:
    import fcntl
except ImportError:  # not a Unix; nothing to lock with
    fcntl = None

POLL_S = 0.2


@contextlib.contextmanager
def measuring_lock(path, waiting):
    """Hold an exclusive lock on a file; ``waiting()`` is called again and again until it is ours, and may raise.

    The system frees the lock when its holder dies, however it dies.
    """
    if path is None or fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not try_lock(handle):
            waiting()
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


def try_lock(handle):
    """Lock an open file, if nobody else has; True where the system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
