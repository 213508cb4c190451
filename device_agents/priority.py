"""Other programs wait while this one measures, where the system lets it (root, or CAP_SYS_NICE)."""

import contextlib
import os

HIGHEST = -20
AUTOGROUP = "/proc/self/autogroup"


@contextlib.contextmanager
def high_priority():
    """Raise this process's priority, and that of the threads it starts; gives the nice value that it got.

    Linux shares a core between sessions first, and only within a session by nice values (``man 7 sched``, autogroup):
    an agent that leads a session of its own raises that session too.
    """
    if not hasattr(os, "setpriority"):
        yield None
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        set_priority(HIGHEST)
    except OSError:
        yield before  # an ordinary user may not
        return
    try:
        yield HIGHEST
    finally:
        set_priority(before)


def set_priority(nice):
    """This process's nice value, and its session's."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError), open(AUTOGROUP, "w") as file:
            file.write(str(nice))
