"""
Starts that wait for their turn, found by their saga; and which code may work on this schema.

From here on each migration says in `oldest_code` which revision of the code still works after it,
and adds itself to `schema_revision`, where a process that was deployed before it looks it up.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_SCHEMA_REVISION = """
CREATE TABLE saga_engine.schema_revision (
    revision text PRIMARY KEY,
    oldest_code text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

# Fifty thousand starts may wait: nobody may have to read past them to find something else.
_PENDING_REQUEST_START = """
CREATE INDEX inbox_start ON saga_engine.inbox (saga, coalesce(version, 0),
    coalesce(fingerprint, ''), coalesce(not_before, received_at), id) WHERE kind = 'start'"""

_PENDING_REQUEST_OTHER = """
CREATE INDEX inbox_other ON saga_engine.inbox (coalesce(definition_id, 0),
    coalesce(not_before, received_at), id) WHERE kind <> 'start' AND NOT held"""

# Whoever said it, by RabbitMQ's word; not in the body, which the code before this reads strictly.
_PENDING_REQUEST_SENDER = "ALTER TABLE saga_engine.inbox ADD COLUMN sender text"

_RECORD_REVISION = "INSERT INTO saga_engine.schema_revision VALUES ('0002', '0001')"


def upgrade() -> None:
    """Add them."""
    for statement in (
        _SCHEMA_REVISION,
        _PENDING_REQUEST_START,
        _PENDING_REQUEST_OTHER,
        _PENDING_REQUEST_SENDER,
        _RECORD_REVISION,
    ):
        op.execute(statement)
