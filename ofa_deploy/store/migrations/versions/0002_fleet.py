"""Devices with profiles, tokens and codes; limits of jobs; and a view of the newest latencies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# the newest row of every device, condition and block
VIEW = """
CREATE VIEW latency_lookup AS
SELECT
    m.device AS hardware_id,
    {kind} AS op_type,
    {h} AS input_h,
    {w} AS input_w,
    {cin} AS channels_in,
    {cout} AS channels_out,
    {stride} AS stride,
    1000 * {p50} AS latency_micros,
    {energy_mj} AS energy_mj,
    m.key AS op_key,
    {kernel} AS kernel,
    1.0 * {mid} / {cin} AS expand,
    m.condition_hash AS condition_hash,
    {simulated} AS simulated,
    m.measured_at AS measured_at
FROM measurements m
WHERE m.kind = 'op' AND m.id = (
    SELECT MAX(n.id) FROM measurements n
    WHERE n.device = m.device AND n.condition_hash = m.condition_hash AND n.key = m.key AND n.kind = 'op'
)
"""
NUMBERS = ("h", "w", "cin", "cout", "stride", "kernel", "mid")


def upgrade() -> None:
    """Add what the fleet needs."""
    _end_what_is_active()
    with op.batch_alter_table("devices") as devices:
        devices.add_column(sa.Column("profile", sa.JSON()))
        devices.add_column(sa.Column("revoked_at", sa.String()))
        devices.alter_column("seen_at", existing_type=sa.String(), nullable=True)
    op.add_column("jobs", sa.Column("start_by", sa.String()))
    op.add_column("jobs", sa.Column("run_s", sa.Float(), nullable=False, server_default="3600"))
    op.create_index("ix_jobs_open", "jobs", ["state", "device", "queue"])
    op.add_column("runs", sa.Column("ends_at", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_runs_lease", "runs", ["state", "expires_at"])
    op.create_index("ix_measurements_item", "measurements", ["item"])
    _create_tables()
    op.execute(VIEW.format(**_fields(op.get_bind().dialect.name)))


def _end_what_is_active() -> None:
    """Jobs of the version before are those of commands that ended; agents would not understand them."""
    op.execute("UPDATE jobs SET state = 'cancelled', finished_at = created_at WHERE state = 'active'")
    op.execute("UPDATE runs SET state = 'cancelled' WHERE state = 'running'")


def _create_tables() -> None:
    for name, columns in {
        "tokens": [sa.Column("revoked_at", sa.String())],
        "codes": [sa.Column("expires_at", sa.String(), nullable=False), sa.Column("secret_hash", sa.String())],
    }.items():
        op.create_table(
            name,
            sa.Column("hash", sa.String(), primary_key=True),
            sa.Column("device", sa.String(), sa.ForeignKey("devices.name"), nullable=False, index=True),
            sa.Column("queue", sa.String(), nullable=False),
            sa.Column("created_at", sa.String(), nullable=False),
            *columns,
        )
    op.create_table(
        "models",
        sa.Column("sha256", sa.String(), primary_key=True),
        sa.Column("job_id", sa.String(), sa.ForeignKey("jobs.id"), primary_key=True, index=True),
    )
    op.create_table(
        "cursors",
        sa.Column("server", sa.String(), primary_key=True),
        sa.Column("device", sa.String(), primary_key=True),
        sa.Column("position", sa.Integer(), nullable=False),
    )


def _fields(dialect: str) -> dict[str, str]:
    """How a database reads the fields of a record, which is JSON."""
    if dialect == "sqlite":
        spec = {name: f"json_extract(m.record, '$.specs[0].{name}')" for name in ("kind", *NUMBERS)}
        rest = {name: f"json_extract(m.record, '$.{name}')" for name in ("p50", "energy_mj")}
        return {**spec, **rest, "simulated": "json_extract(m.record, '$.condition.simulated')"}
    spec = {name: f"CAST(m.record -> 'specs' -> 0 ->> '{name}' AS INTEGER)" for name in NUMBERS}
    rest = {name: f"CAST(m.record ->> '{name}' AS DOUBLE PRECISION)" for name in ("p50", "energy_mj")}
    simulated = "CAST(m.record -> 'condition' ->> 'simulated' AS BOOLEAN)"
    return {"kind": "m.record -> 'specs' -> 0 ->> 'kind'", **spec, **rest, "simulated": simulated}
