"""The folder in which the project keeps its state."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ofa_deploy.errors import UsageError
from ofa_deploy.store.store import Store

DEFAULT = ".ofa"
VARIABLE = "OFA_WORKSPACE"
DATABASE = "OFA_DATABASE"


@dataclass(frozen=True)
class Workspace:
    """An open workspace.

    Attributes:
        root: the folder.
        store: its database, ``ofa.db`` unless another is named; it is the truth, files under ``tables`` are exports.
    """

    root: Path
    store: Store

    @classmethod
    def open(cls, path: Path | None = None, database: str | None = None) -> Workspace:
        """Open a workspace and create what is missing: ``path``, else ``OFA_WORKSPACE``, else ``.ofa`` where you stand.

        Args:
            database: URL of its database, else ``OFA_DATABASE``, else the file ``ofa.db`` in it.

        Raises:
            UsageError: the folder or its database cannot be created, read or written, or is from a newer version.
        """
        root = Path(path or os.environ.get(VARIABLE) or DEFAULT).absolute()
        try:
            for folder in ("supernets", "accuracy", "tables", "targets", "audits", "bundles"):
                (root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot create the workspace {root}: {error.strerror}; name another with --workspace"
            ) from error
        return cls(root, Store(database or os.environ.get(DATABASE) or f"sqlite:///{root / 'ofa.db'}"))

    @property
    def supernets(self) -> Path:
        """Checkpoints."""
        return self.root / "supernets"

    @property
    def accuracy(self) -> Path:
        """Imported accuracy predictors, by name."""
        return self.root / "accuracy"

    @property
    def tables(self) -> Path:
        """Exported latency tables."""
        return self.root / "tables"

    @property
    def targets(self) -> Path:
        """Targets that a pipeline declared, as profiles: other commands find them by name."""
        return self.root / "targets"

    @property
    def audits(self) -> Path:
        """The newest audit of every target, as pages."""
        return self.root / "audits"

    @property
    def bundles(self) -> Path:
        """What ``extract`` left."""
        return self.root / "bundles"

    def as_of(self, device: str, until: int) -> Workspace:
        """The same workspace, in which what is known of a device ends with the measurement of that ``id``."""
        return replace(self, store=self.store.as_of(device, until))

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
