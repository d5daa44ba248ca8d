"""Who rebuilt the tables of a projection or switched to others, and why."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0004', '0001')"

# The newest of each projection are kept.
_ACTION = """
CREATE TABLE saga_engine.projection_action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection text COLLATE "C" NOT NULL,
    action text NOT NULL CHECK (action IN ('rebuild', 'discard', 'switch', 'back')),
    version integer NOT NULL,
    acted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator text NOT NULL,
    reason text NOT NULL
)"""
_ACTION_INDEX = (
    "CREATE INDEX projection_action_projection ON saga_engine.projection_action (projection, id)"
)


def upgrade() -> None:
    """Create the table of actions."""
    for statement in (_ACTION, _ACTION_INDEX, _RECORD_REVISION):
        op.execute(statement)
