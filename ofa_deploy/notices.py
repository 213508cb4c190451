"""What long work says while it runs: remarks on stderr, and numbers for whoever shows its progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

Numbers = dict[str, float | str]  # ``done`` and ``total`` count the same thing; the others are shown beside them
Progress = Callable[[Numbers], None]
Tell = Callable[[str, Numbers], None]  # (what is going on, its numbers; without numbers it is a remark)


def silent(what: str, numbers: Numbers) -> None:
    """Show no progress."""


@cache
def note(text: str) -> None:
    """Tell people something on stderr, once in a process."""
    print(f"ofa-deploy: {' '.join(text.split())}", file=sys.stderr, flush=True)
