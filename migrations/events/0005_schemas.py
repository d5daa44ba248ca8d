"""
The registry of schemas: of events, and of the commands and replies of sagas.

A schema is a version of a subject. It is inserted when a process loads a module that declares it,
and never changes; its id is the one on the wire and in the metadata of events.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0005', '0001')"

_SUBJECT = """
CREATE TABLE saga_engine.schema_subject (
    subject text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('event', 'command', 'reply')),
    compatibility text NOT NULL CHECK (compatibility IN ('backward', 'backward_transitive',
        'forward', 'forward_transitive', 'full', 'full_transitive', 'none'))
)"""

# JSON, which keeps the order of fields, and not JSONB.
_SCHEMA = """
CREATE TABLE saga_engine.schema (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text COLLATE "C" NOT NULL REFERENCES saga_engine.schema_subject,
    version integer NOT NULL CHECK (version > 0),
    fingerprint text NOT NULL,
    writes json NOT NULL,
    reads json NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (subject, version, fingerprint)
)"""


def upgrade() -> None:
    """Create the tables of schemas."""
    for statement in (_SUBJECT, _SCHEMA, _RECORD_REVISION):
        op.execute(statement)
