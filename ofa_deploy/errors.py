"""One exception tree: every error a user can meet, each with the exit code the command line returns for it.

    OfaDeployError            1   anything else
    ├── UsageError            2   wrong usage or configuration
    │   └── OpNotProfiled     2   a block was never measured on this target
    ├── InfeasibleBudget      3   no subnet of the space meets the budget
    ├── GateFailed            4   measured over budget, parity broken, accuracy below its gate
    └── DeviceUnavailable     5   the device that should measure is not there

A message is one line that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class OfaDeployError(Exception):
    """Base of all errors this package raises on purpose."""

    exit_code = 1


class UsageError(OfaDeployError):
    """The command line, a configuration file or an input file is wrong."""

    exit_code = 2


class OpNotProfiled(UsageError):
    """A latency table has no row for a block."""


class InfeasibleBudget(OfaDeployError):
    """No subnet meets the constraints; the message names the fastest (or smallest) one."""

    exit_code = 3


class GateFailed(OfaDeployError):
    """A promise was checked and does not hold."""

    exit_code = 4


class DeviceUnavailable(OfaDeployError):
    """The device that a command needs does not answer."""

    exit_code = 5
