"""Model files on their way to the devices: kept under their sha256 while a job needs them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.fleet.onnx_files import refuse_other_files

PART_BYTES = 2**20  # that are hashed and written at once
OLD_S = 24 * 3600.0  # between a model's arrival and the job that needs it there are seconds


class Blobs:
    """A folder of files, each named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def size(self, sha256: str) -> int | None:
        """Of a file in bytes, or None where it is not here."""
        path = self.path(sha256)
        return path.stat().st_size if path else None

    def path(self, sha256: str) -> Path | None:
        """The file, or None where it is not here."""
        path = self.folder / sha256
        return path if path.is_file() else None

    async def receive(self, sha256: str, stream: AsyncIterator[bytes]) -> None:
        """Store what comes in; memory stays flat however much it is.

        Raises:
            UsageError: the content is not what its name says, or refers to other files; nothing is kept.
            OfaDeployError: the disk is full.
        """
        digest = hashlib.sha256()
        with self._incoming(sha256) as temporary:
            with temporary.open("wb") as file:

                def take(data: bytearray) -> None:
                    digest.update(data)
                    file.write(data)

                async for data in _gathered(stream):
                    await asyncio.to_thread(take, data)
            if digest.hexdigest() != sha256:
                raise UsageError(f"the file's sha256 is {digest.hexdigest()}, not {sha256}")
            await asyncio.to_thread(refuse_other_files, temporary)

    def keep(self, models: Mapping[str, bytes]) -> None:
        """Store models, by sha256, of the process in which the server runs.

        Through HTTP each part would wait until the thread that sends it and the thread that takes it get a core: beside
        four busy loops on two cores, minutes for what takes seconds alone.

        Raises:
            UsageError, OfaDeployError: as in ``receive``.
        """
        for sha256, model in models.items():
            if self.path(sha256) is None:
                with self._incoming(sha256) as temporary:
                    temporary.write_bytes(model)
                    refuse_other_files(temporary)

    @contextlib.contextmanager
    def _incoming(self, sha256: str) -> Iterator[Path]:
        """A file to write to, which takes its place when it is written without an error."""
        try:
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".incoming-")
            os.close(handle)
            temporary = Path(name)
            try:
                yield temporary
                temporary.replace(self.folder / sha256)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise OfaDeployError(f"cannot store a model in {self.folder}: {error.strerror}") from error

    def drop(self, names: Iterable[str]) -> None:
        """Delete files; those that are gone already do not matter."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def drop_old(self, needed: Collection[str]) -> None:
        """Delete files that nobody needs and nobody can be about to need."""
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if path.name not in needed and time.time() - path.stat().st_mtime > OLD_S:
                    path.unlink()


async def _gathered(stream: AsyncIterator[bytes]) -> AsyncIterator[bytearray]:
    """The stream in parts that are worth a thread's time."""
    waiting = bytearray()
    async for part in stream:
        waiting += part
        if len(waiting) >= PART_BYTES:
            yield waiting
            waiting = bytearray()
    if waiting:
        yield waiting
