"""What runtimes share: loading a library, refusing what cannot be had, and the condition that rows are stored under."""

import importlib

from device_agents.facts import pin_to_cores, power_mode
from device_agents.runtimes import RuntimeRefused


def library(module, title, install):
    """Import a runtime's Python module.

    Raises:
        RuntimeRefused: it is not installed, or broken; says how to get it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that it needs is missing
        said = " ".join(str(error).split())
        raise RuntimeRefused("{} is not installed here ({}): {}".format(title, said, install)) from error


def check_asked(asked, title, precisions):
    """Refuse a provider or a precision that a runtime does not know.

    Args:
        precisions: by provider, those it can compute in.
    """
    provider, precision = asked["provider"], asked["precision"]
    if provider not in precisions:
        raise RuntimeRefused("{} has no {}; it has {}".format(title, provider, ", ".join(sorted(precisions))))
    if precision not in precisions[provider]:
        known = ", ".join(precisions[provider])
        raise RuntimeRefused("{} on {} computes in {}, not in {}".format(title, provider, known, precision))


def pin(threads):
    """Keep this process on as many cores as it has threads; returns them, or None where the system cannot.

    Raises:
        RuntimeRefused: it may not use so many.
    """
    cores = pin_to_cores(threads)
    if cores is not None and len(cores) < threads:
        raise RuntimeRefused("{} threads are asked for, this process may use {} cores".format(threads, len(cores)))
    return cores


def condition(asked, version):
    """What the rows of a runtime that times this machine are stored under."""
    return {
        "runtime": asked["runtime"],
        "runtime_version": version,
        "provider": asked["provider"],
        "precision": asked["precision"],
        "batch": asked["batch"],
        "threads": asked["threads"],
        "simulated": False,
        "power_mode": power_mode(),
    }


def malformed(error):
    """A model that a runtime cannot read, in one line."""
    return RuntimeRefused(" ".join(str(error).split())[:300] or type(error).__name__, "malformed")
