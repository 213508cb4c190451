"""One measurement at a time on a machine: two at once spoil both."""

import contextlib
import os
import stat
import time

try:
    import fcntl
except ImportError:  # not a Unix; nothing to lock with
    fcntl = None

POLL_S = 0.2
SHARED = ("/run/lock", "/var/lock", "/dev/shm", "/tmp")  # noqa: S108 - not TMPDIR, which differs from user to user


def host_lock(device=""):
    """The file that all agents on this machine lock while they time it, whoever started them: in the first folder that
    everybody may write to, else in the user's home.

    Args:
        device: a name, where it is another device that is timed from here.
    """
    name = "ofa-agent{}.lock".format("".join(c if c.isalnum() else "-" for c in "-" + device) if device else "")
    for folder in SHARED:
        with contextlib.suppress(OSError):
            if stat.S_IMODE(os.stat(folder).st_mode) & 0o003 == 0o003:
                return os.path.join(folder, name)
    return os.path.join(os.path.expanduser("~"), "." + name)


@contextlib.contextmanager
def measuring_lock(path, waiting):
    """Hold an exclusive lock on a file; ``waiting()`` is called again and again until it is ours, and may raise.

    The system frees the lock when its holder dies, however it dies.
    """
    if path is None or fcntl is None:
        yield
        return
    handle = open_lock(path)
    try:
        while not try_lock(handle):
            waiting()
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


def open_lock(path):
    """Open a lock file, which may be another user's: then it can only be read, and that is enough to lock it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def try_lock(handle):
    """Lock an open file, if nobody else has; True where the system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
