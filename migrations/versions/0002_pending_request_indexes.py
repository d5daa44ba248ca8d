"""
Indexes by which workers find the pending requests that they can process.

Thousands of starts may be pending. With these indexes a worker reads none of the requests that are
pinned to other definitions, are deferred, or wait for the start of their run.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_PENDING_REQUEST_START = """
CREATE INDEX pending_request_start ON saga_engine.pending_request (saga, coalesce(version, 0),
    coalesce(fingerprint, ''), coalesce(not_before, received_at), id) WHERE kind = 'start'"""

_PENDING_REQUEST_OTHER = """
CREATE INDEX pending_request_other ON saga_engine.pending_request (coalesce(definition_id, 0),
    coalesce(not_before, received_at), id) WHERE kind <> 'start' AND NOT awaits_start"""

_RECORD_REVISION = "INSERT INTO saga_engine.schema_revision VALUES ('0002', '0001')"


def upgrade() -> None:
    """Add the indexes."""
    for statement in (_PENDING_REQUEST_START, _PENDING_REQUEST_OTHER, _RECORD_REVISION):
        op.execute(statement)
