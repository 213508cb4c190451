"""Waking agents that wait for work: in this process by a bell, for other processes' jobs by one slow poll for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

POLL_S = 1.0
Line = tuple[str, str]  # a device and a queue


class Bells:
    """One bell for every device and queue on which somebody waits.

    Args:
        look: called in a thread once in ``POLL_S``; says for whom there is work.
    """

    def __init__(self, look: Callable[[], Iterable[Line]]) -> None:
        self._look = look
        self._waiting: defaultdict[Line, set[asyncio.Future[None]]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False  # nobody should wait any more

    @contextlib.contextmanager
    def listening(self, line: Line) -> Iterator[asyncio.Future[None]]:
        """A bell that rings at most once. To be had before looking for work, so that none comes unheard in between."""
        self._loop = asyncio.get_running_loop()
        bell = self._loop.create_future()
        self._waiting[line].add(bell)
        if self.closed:
            bell.set_result(None)
        try:
            yield bell
        finally:
            bell.cancel()
            self._waiting[line].discard(bell)
            if not self._waiting[line]:
                del self._waiting[line]

    def ring(self, line: Line) -> None:
        """Wake who waits there; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._ring, line)

    def _ring(self, line: Line) -> None:
        for bell in list(self._waiting.get(line, ())):
            if not bell.done():
                bell.set_result(None)

    def close(self) -> None:
        """Wake everybody for good; from the loop."""
        self.closed = True
        for line in list(self._waiting):
            self._ring(line)

    async def poll(self) -> None:
        """Look for work again and again, until cancelled."""
        while True:
            try:
                for line in await asyncio.to_thread(self._look):
                    self._ring(line)
            except Exception:  # the database is away for a moment, say: agents wait on
                logging.getLogger(__name__).exception("could not look for work")
            await asyncio.sleep(POLL_S)
