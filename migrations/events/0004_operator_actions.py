"""What operators did with projections, feeds and consumers, when and why."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0004', '0001')"

# The newest of each projection and each feed are kept. `version` is that of a projection's tables;
# `position` is of an event, or to which a feed was rewound; of a
# consumer, the id of a failure.
_ACTION = """
CREATE TABLE saga_engine.operator_action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('projection', 'feed', 'consumer')),
    name text COLLATE "C" NOT NULL,
    sink text COLLATE "C",  -- of a feed
    action text NOT NULL CHECK (action IN ('pause', 'resume', 'retry', 'skip', 'rebuild', 'switch',
        'back', 'discard', 'rewind')),
    version integer,
    position bigint,
    acted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator text NOT NULL,
    reason text NOT NULL
)"""
_ACTION_INDEX = (
    "CREATE INDEX operator_action_subject ON saga_engine.operator_action (kind, name, id)"
)


def upgrade() -> None:
    """Create the table of actions."""
    for statement in (_ACTION, _ACTION_INDEX, _RECORD_REVISION):
        op.execute(statement)
