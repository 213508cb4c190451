"""Every architecture that was evaluated or measured, and all that is known of it: evaluated once, found again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session

from ofa_deploy.arch_record import ArchFacts
from ofa_deploy.errors import UsageError
from ofa_deploy.store.database import reading, writing
from ofa_deploy.store.schema import ArchitectureRow, ArtefactRow, Base, EvaluationRow, MeasurementRow
from ofa_deploy.store.views import Artefact, Evaluation, KnownArch, MeasuredNetwork

NUMBERS = ("p50", "p90", "p99", "se")  # of a measurement record, as they are shown
PAGE = 5000  # keys in one query: SQLite accepts 32 766 values in a statement


class Architectures:
    """The architectures of one database. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, archs: Iterable[ArchFacts]) -> None:
        """Remember architectures; of one that is known, only what was unknown is filled in."""
        with writing(self._engine) as session:
            for arch in archs:
                remember(session, arch)

    def count(self) -> int:
        """How many are known."""
        with reading(self._engine) as session:
            return session.scalar(select(func.count()).select_from(ArchitectureRow)) or 0

    def find(self, space: str | None = None, state: str | None = None, supernet: str | None = None) -> list[KnownArch]:
        """All architectures, oldest first, or those of a space, with weights in some training state, or of a supernet;
        each with the newest measurement of every device and condition."""
        query = select(ArchitectureRow).order_by(ArchitectureRow.created_at, ArchitectureRow.key)
        if space is not None:
            query = query.where(ArchitectureRow.space == space)
        judged = {name: value for name, value in (("state", state), ("supernet", supernet)) if value is not None}
        if judged:
            query = query.where(ArchitectureRow.key.in_(select(EvaluationRow.key).filter_by(**judged)))
        return self._known(query)

    def one(self, prefix: str) -> KnownArch:
        """The architecture whose key begins with a prefix, as ``find`` gives it.

        Raises:
            UsageError: there is none, or there are several.
        """
        begins = ArchitectureRow.key.startswith(prefix.lower(), autoescape=True)
        found = self._known(select(ArchitectureRow).where(begins).order_by(ArchitectureRow.key).limit(3))
        if not found:
            raise UsageError(f"no architecture's key begins with {prefix[:64]!r}; see: ofa-deploy arch list")
        if len(found) > 1:
            some = ", ".join(one.key[: len(prefix) + 6] for one in found)
            raise UsageError(f"several architectures' keys begin with {prefix!r}: {some}, …; give more of the key")
        return found[0]

    def _known(self, query: Select[ArchitectureRow]) -> list[KnownArch]:
        with reading(self._engine) as session:
            rows = session.scalars(query).all()
            keys = [row.key for row in rows]
            evaluations, bundles = _evaluations(session, keys), _bundles(session, keys)
            measured = _measurements(session, [row.network for row in rows if row.network])
            return [
                KnownArch(
                    key=row.key,
                    space=row.space,
                    arch=row.arch,
                    network=row.network,
                    macs=row.macs,
                    params=row.params,
                    created_at=row.created_at,
                    evaluations=tuple(evaluations[row.key]),
                    measurements=tuple(measured[row.network]),
                    bundles=tuple(bundles[row.key]),
                )
                for row in rows
            ]


def remember(session: Session, arch: ArchFacts) -> None:
    """Add an architecture, or fill in what was unknown of it."""
    values = {**vars(arch), "arch": dict(arch.arch), "space": arch.arch.get("space", "")}
    kept = {name: getattr(ArchitectureRow, name) for name in ("network", "macs", "params")}
    upsert(session, ArchitectureRow, values, ["key"], kept)


def upsert(
    session: Session,
    table: type[Base],
    values: Mapping[str, object],
    unique: Sequence[str],
    kept: Mapping[str, object] | None = None,
) -> None:
    """Insert a row, or change the one that has the same ``unique`` columns: several may write it at the same moment.

    Args:
        kept: the columns that change only where they are null; by default all take the new values.
    """
    dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")  # the one in use, not both
    statement = dialect.insert(table).values(**values)
    new = statement.excluded
    if kept is None:
        changes = {name: new[name] for name in values if name not in unique}
    else:
        changes = {name: func.coalesce(column, new[name]) for name, column in kept.items()}
    session.execute(statement.on_conflict_do_update(index_elements=list(unique), set_=changes))


def _pages(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[i : i + PAGE] for i in range(0, len(keys), PAGE)]


def as_evaluation(row: EvaluationRow) -> Evaluation:
    """A row as a record."""
    return Evaluation(**{field.name: getattr(row, field.name) for field in fields(Evaluation)})


def as_artefact(row: ArtefactRow) -> Artefact:
    """A row as a record."""
    return Artefact(row.kind, row.path, row.sha256, row.meta, row.created_at)


def _evaluations(session: Session, keys: Sequence[str]) -> dict[str, list[Evaluation]]:
    found: dict[str, list[Evaluation]] = defaultdict(list)
    for page in _pages(keys):
        for row in session.scalars(select(EvaluationRow).where(EvaluationRow.key.in_(page)).order_by(EvaluationRow.id)):
            found[row.key].append(as_evaluation(row))
    return found


def _bundles(session: Session, keys: Sequence[str]) -> dict[str, list[Artefact]]:
    """A bundle's row has its subnet's key in place of a file's hash."""
    found: dict[str, list[Artefact]] = defaultdict(list)
    query = select(ArtefactRow).filter_by(kind="bundle").order_by(ArtefactRow.id)
    for page in _pages(keys):
        for row in session.scalars(query.where(ArtefactRow.sha256.in_(page))):
            found[row.sha256].append(as_artefact(row))
    return found


def _measurements(session: Session, networks: Sequence[str]) -> dict[str | None, list[MeasuredNetwork]]:
    """The newest measurement of every network, device and condition."""
    row, record = MeasurementRow, MeasurementRow.record
    numbers = [record[name].as_float() for name in NUMBERS]
    found: dict[str | None, list[MeasuredNetwork]] = defaultdict(list)
    for page in _pages(networks):
        of_page = (row.kind == "network", row.key.in_(page))
        newest = select(func.max(row.id)).where(*of_page).group_by(row.device, row.condition_hash, row.key)
        query = select(row.key, row.device, record["condition"], row.measured_at, *numbers).order_by(row.id)
        for key, device, condition, at, p50, p90, p99, se in session.execute(query.where(row.id.in_(newest))):
            found[key].append(MeasuredNetwork(device, condition, p50, p90, p99, se, at))
    return found
