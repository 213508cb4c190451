"""What a timing cost this process beside the time that passed: processor time, and how often it lost its core.

On a machine that others use too, a call that outlives a scheduler's slice waits for a core, and its duration says how
busy the machine is. The processor time of the same call hardly changes.
"""

import time

try:
    import resource
except ImportError:  # not on Windows
    resource = None

CPU_CLOCK = getattr(time, "CLOCK_PROCESS_CPUTIME_ID", None)


def known():
    """Whether this system says it."""
    return resource is not None and CPU_CLOCK is not None


def spent():
    """Nanoseconds of processor time of all threads of this process so far, and its involuntary context switches."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(time.clock_gettime(CPU_CLOCK) * 1e9), usage.ru_nivcsw
