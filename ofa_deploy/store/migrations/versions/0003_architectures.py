"""Architectures; evaluations say how their weights came to be, and which they are."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

OLD = ("supernet", "key", "split", "role", "arch", "accuracy", "n", "created_at")


def upgrade() -> None:
    """Add the table of architectures, with those that were evaluated."""
    op.create_table(
        "architectures",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("space", sa.String(), nullable=False, index=True),
        sa.Column("arch", sa.JSON(), nullable=False),
        sa.Column("network", sa.String(), index=True),
        sa.Column("macs", sa.BigInteger()),
        sa.Column("params", sa.BigInteger()),
        sa.Column("created_at", sa.String(), nullable=False),
    )
    _extend_evaluations()
    _fill()
    op.create_index("ix_measurements_kind_key", "measurements", ["kind", "key"])


def _extend_evaluations() -> None:
    """By a new table: the constraint that changes has no name, and SQLite cannot drop one."""
    op.create_table(
        "evaluations_new",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("supernet", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("weights", sa.String(), nullable=False),
        sa.Column("arch", sa.JSON(), nullable=False),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.UniqueConstraint("supernet", "key", "split", "state", "weights"),
    )
    columns = ", ".join(OLD)
    op.execute(
        f"INSERT INTO evaluations_new ({columns}, state, weights) "  # noqa: S608
        f"SELECT {columns}, 'one-shot', supernet FROM evaluations ORDER BY id"
    )
    op.drop_table("evaluations")
    op.rename_table("evaluations_new", "evaluations")
    op.create_index("ix_evaluations_key", "evaluations", ["key"])


def _fill() -> None:
    names = ("key", "arch", "created_at")
    known = sa.table("evaluations", *(sa.column(name, sa.JSON() if name == "arch" else None) for name in names))
    rows = op.get_bind().execute(sa.select(*(known.c[name] for name in names)).order_by(known.c.created_at.desc()))
    oldest = {row.key: {"key": row.key, "arch": row.arch, "created_at": row.created_at} for row in rows}
    architectures = sa.table(
        "architectures", *(sa.column(n, sa.JSON() if n == "arch" else None) for n in (*names, "space"))
    )
    filled = [{**row, "space": row["arch"].get("space", "")} for row in oldest.values()]
    if filled:
        op.bulk_insert(architectures, filled)
