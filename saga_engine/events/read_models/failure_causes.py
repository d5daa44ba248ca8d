"""
The read model `failure_cause`: what went wrong in the steps of each saga, and how often.

It counts attempts that failed or got no reply, rejections, incidents, and why runs compensate.
Participants choose the codes of their failures, so of each step only the first ones are kept; the
others are counted together.
"""

from saga_engine.events.read_models.read_model import ReadModel, events_in_range, saga_of

MAX_CODES = 100
"""Codes that are kept of one saga, step, direction and event."""

MAX_CODE_LENGTH = 100
"""Characters of a code that are kept."""

OTHER = "other"
"""Stands for all further codes."""

_TYPES = ("attempt_failed", "step_rejected", "incident_opened", "run_compensating")

# The first codes in the order of their positions are kept, however the batches are cut. A run that
# compensates because of a cancel or its deadline names no step.
FAILURE_CAUSE = ReadModel.of_table(
    "failure_cause",
    f"""
    WITH failed AS MATERIALIZED (
        SELECT e.run_id, e.recorded_at, e.position, e.place, e.type AS event,
            coalesce(e.data->>'step', e.data->'cause'->>'step', '') AS step,
            coalesce(e.data->>'direction', 'action') AS direction,
            left(coalesce(CASE e.type WHEN 'incident_opened' THEN e.data->>'cause'
                WHEN 'run_compensating' THEN e.data->'cause'->>'code'
                ELSE e.data->'failure'->>'code' END, ''), {MAX_CODE_LENGTH}) AS code
        FROM ({events_in_range(_TYPES)}) AS e
    ), counted AS MATERIALIZED (
        SELECT saga, step, direction, event, code, count(*) AS failures,
            max(recorded_at) AS last_failed_at,
            (array_agg(run_id ORDER BY position DESC, place DESC))[1] AS last_run_id,
            max(position) AS last_position, min(position) AS first_position
        FROM (SELECT f.*, {saga_of("f")} AS saga FROM failed AS f) AS named
        WHERE saga IS NOT NULL
        GROUP BY saga, step, direction, event, code
    ), ranked AS (
        SELECT c.*, c.code = '{OTHER}' OR EXISTS (
                SELECT FROM saga_engine.failure_cause AS s
                WHERE s.saga = c.saga AND s.step = c.step AND s.direction = c.direction
                    AND s.event = c.event AND s.code = c.code) AS is_kept
        FROM counted AS c
    ), kept AS (
        SELECT r.*, CASE WHEN is_kept OR {MAX_CODES} >= (
                SELECT count(*) FROM saga_engine.failure_cause AS s
                WHERE s.saga = r.saga AND s.step = r.step AND s.direction = r.direction
                    AND s.event = r.event AND s.code <> '{OTHER}')
                + row_number() OVER (PARTITION BY saga, step, direction, event, is_kept
                    ORDER BY first_position, code)
            THEN code ELSE '{OTHER}' END AS kept_code
        FROM ranked AS r
    )
    INSERT INTO saga_engine.failure_cause AS stored
        (saga, step, direction, event, code, failures, last_failed_at, last_run_id)
    SELECT saga, step, direction, event, kept_code, sum(failures)::bigint, max(last_failed_at),
        (array_agg(last_run_id ORDER BY last_position DESC))[1]
    FROM kept GROUP BY saga, step, direction, event, kept_code
    ON CONFLICT (saga, step, direction, event, code) DO UPDATE
    SET failures = stored.failures + excluded.failures,
        last_failed_at = greatest(stored.last_failed_at, excluded.last_failed_at),
        last_run_id = excluded.last_run_id""",  # noqa: S608 - constants
)
