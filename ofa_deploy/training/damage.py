"""Images that cannot be read: each is named once, and too many are an error."""

from __future__ import annotations

from collections.abc import Iterable

from ofa_deploy.errors import UsageError
from ofa_deploy.notices import note


class Damage:
    """What was wrong with the files of one data set, wherever it was noticed.

    Args:
        limit: more than so many are an error; a number below 1 is a share of ``total``.
        total: images of the data set.
    """

    def __init__(self, limit: float, total: int) -> None:
        self.limit, self.total = int(limit * total if 0 < limit < 1 else limit), total
        self.found: dict[str, None] = {}

    def add(self, complaints: Iterable[str]) -> None:
        """Take note of files, each described by a line of its own that is always the same.

        Raises:
            UsageError: they are too many; says how many, and repeats the first.
        """
        for complaint in complaints:
            self.found[complaint] = None
            note(f"{complaint}; until then it is skipped")
        if len(self.found) > self.limit:
            raise UsageError(
                f"{len(self.found)} of {self.total} images cannot be read, more than data.corrupt_limit allows "
                f"({self.limit}): {'; '.join(list(self.found)[:3])}; or raise the limit"
            )
