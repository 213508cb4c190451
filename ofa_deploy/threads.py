"""The threads of numpy's linear algebra: for matrices as small as a search's or a fit's, they wait for each other more
than they compute, and many times longer on a machine that does other things as well."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """Within: linear algebra runs on the thread that asks for it."""
    return _libraries().limit(limits=1)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
