"""What a device said about itself in a run is stored once, no longer in every record of the run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table. Records that are stored already keep their copy: both forms are read."""
    op.create_table(
        "run_facts",
        sa.Column("run", sa.String(), primary_key=True),
        sa.Column("facts", sa.JSON(), nullable=False),
    )
