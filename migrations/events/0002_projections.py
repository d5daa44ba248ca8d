"""
Projections: how far each one is, who runs it, and the events that it could not apply.

They are in the database of the events and of the tables they fill, so that effects and checkpoint
are one transaction.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0002', '0001')"

# The row is updated with each batch; half of each page is free, so that updates are HOT.
#
# `version` numbers the tables of a projection, `code_version` is that of the declaration that fills
# them. table_schema and table_name have the names in the declaration, of which the names of tables
# that are not live are made; has_tables is false until a projector has made those of a rebuild. The
# constraint is deferrable, so that one statement can exchange the roles of two rows.
#
# A process with less than its share of leases writes its name to `wanted_by`; the owner gives it
# the lease, unless `wanted_until` has passed.
#
# Retention keeps the journals that a reader of runs has not read. It drops them when the reader has
# not moved for too long; `missing_until` is then the last position of what it has missed.
_PROJECTION = """
CREATE TABLE saga_engine.projection (
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'stopped')),
    position bigint NOT NULL DEFAULT 0,
    owner text,
    leased_until timestamptz,
    wanted_by text,
    wanted_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT 'live' CHECK (role IN ('live', 'rebuild', 'previous')),
    code_version integer NOT NULL,
    table_schema text[] NOT NULL DEFAULT '{}',
    table_name text[] NOT NULL DEFAULT '{}',
    rebuild_problem text,
    has_tables boolean NOT NULL DEFAULT true,
    replaced_at timestamptz,
    reads_runs boolean NOT NULL DEFAULT true,
    missing_until bigint,
    PRIMARY KEY (name, version),
    CONSTRAINT projection_role UNIQUE (name, role) DEFERRABLE
) WITH (fillfactor = 50)"""

# One row for each event that failed; what an operator did about it stays in it.
_PROJECTION_FAILURE = """
CREATE TABLE saga_engine.projection_failure (
    projection text COLLATE "C" NOT NULL,
    projection_version integer NOT NULL,
    position bigint NOT NULL,
    stream text NOT NULL,
    stream_version integer NOT NULL,
    type text NOT NULL,
    error text NOT NULL,
    trace text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolution text CHECK (resolution IN ('retried', 'skipped')),
    resolved_at timestamptz,
    resolved_by text,
    reason text,
    PRIMARY KEY (projection, projection_version, position),
    FOREIGN KEY (projection, projection_version) REFERENCES saga_engine.projection ON DELETE CASCADE
)"""

# Events of the stream from next_position on are not applied yet; none has a lower version than
# next_version.
_PARKED_STREAM = """
CREATE TABLE saga_engine.parked_stream (
    projection text COLLATE "C" NOT NULL,
    projection_version integer NOT NULL,
    stream text COLLATE "C" NOT NULL,
    next_position bigint NOT NULL,
    next_version integer NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_requested_at timestamptz,
    PRIMARY KEY (projection, projection_version, stream),
    FOREIGN KEY (projection, projection_version) REFERENCES saga_engine.projection ON DELETE CASCADE
)"""


def upgrade() -> None:
    """Create the tables of projections."""
    for statement in (
        _PROJECTION,
        _PROJECTION_FAILURE,
        _PARKED_STREAM,
        _RECORD_REVISION,
    ):
        op.execute(statement)
