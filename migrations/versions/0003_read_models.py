"""
The engine's read models: runs by saga and status, durations by step, causes of failures.

Each table belongs to one projection of the journals, which fills it while a worker runs with
`--events`; see `saga_engine/events/read_models/`. No row is deleted: their number is bounded by
the sagas and their steps.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

min_code_revision = "0001"

# Rows are updated with each batch; half of each page is free, so that updates are HOT.
_STORAGE = "WITH (fillfactor = 50)"

_RUN_STATISTICS = f"""
CREATE TABLE saga_engine.run_statistics (
    saga text COLLATE "C" NOT NULL,
    status text NOT NULL,
    runs bigint NOT NULL,
    PRIMARY KEY (saga, status)
) {_STORAGE}"""

# A row for each bound of a histogram; the last bound is infinite. A duration is in one row only.
# An interval is a whole number of microseconds, so a sum does not depend on the order.
_STEP_DURATION = f"""
CREATE TABLE saga_engine.step_duration (
    saga text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    direction text NOT NULL,
    up_to_seconds double precision NOT NULL,
    steps bigint NOT NULL,
    total_duration interval NOT NULL,
    PRIMARY KEY (saga, step, direction, up_to_seconds)
) {_STORAGE}"""

_FAILURE_CAUSE = f"""
CREATE TABLE saga_engine.failure_cause (
    saga text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    direction text NOT NULL,
    event text NOT NULL,
    code text COLLATE "C" NOT NULL,
    failures bigint NOT NULL,
    last_failed_at timestamptz NOT NULL,
    last_run_id uuid NOT NULL,
    PRIMARY KEY (saga, step, direction, event, code)
) {_STORAGE}"""

_RECORD_REVISION = "INSERT INTO saga_engine.schema_revision VALUES ('0003', '0001')"


def upgrade() -> None:
    """Create the tables."""
    for statement in (_RUN_STATISTICS, _STEP_DURATION, _FAILURE_CAUSE, _RECORD_REVISION):
        op.execute(statement)
