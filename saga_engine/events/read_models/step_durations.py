"""
The read model `step_duration`: how long the steps of each saga take, as a histogram.

The duration is the time from the first command of a step to its success, with all retries and with
the time in which it waited for an operator. Steps that did not succeed are not counted.
"""

from saga_engine.events.read_models.read_model import ReadModel, events_in_range, saga_of

BOUNDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900),
    *(3_600, 21_600, 86_400),
)
"""Seconds. A duration is in the row of the first bound that is above it; the last is infinite."""

_BOUNDS = f"ARRAY[{', '.join(map(str, BOUNDS))}]::double precision[]"

# The first command is in an earlier batch, if it is not in this one.
_EARLIER_START = """(
    SELECT p.recorded_at
    FROM saga_engine.journal AS p, LATERAL jsonb_array_elements(p.events) AS b(event)
    WHERE p.run_id = done.run_id AND b.event->>'type' = 'attempt_started'
        AND b.event->'data'->>'attempt' = '1' AND b.event->'data'->>'step' = done.step
        AND b.event->'data'->>'direction' = done.direction
    LIMIT 1)"""

STEP_DURATION = ReadModel.of_table(
    "step_duration",
    f"""
    INSERT INTO saga_engine.step_duration AS stored
        (saga, step, direction, up_to_seconds, steps, total_duration)
    SELECT saga, step, direction, up_to_seconds, count(*), sum(duration)
    FROM (
        SELECT {saga_of("timed")} AS saga, step, direction, duration,
            coalesce(({_BOUNDS})[1 + width_bucket(extract(epoch FROM duration)::double precision,
                {_BOUNDS})], 'Infinity') AS up_to_seconds
        FROM (
            SELECT run_id, step, direction, greatest(interval '0',
                succeeded_at - coalesce(started_at, {_EARLIER_START})) AS duration
            FROM (
                SELECT e.run_id, e.data->>'step' AS step, e.data->>'direction' AS direction,
                    min(e.recorded_at) FILTER (WHERE e.type = 'attempt_started') AS started_at,
                    min(e.recorded_at) FILTER (WHERE e.type = 'step_succeeded') AS succeeded_at
                FROM ({events_in_range(("attempt_started", "step_succeeded"))}) AS e
                WHERE CASE e.type WHEN 'attempt_started' THEN e.data->>'attempt' = '1'
                    ELSE e.data->>'late' IS NULL END
                GROUP BY 1, 2, 3) AS done
            WHERE succeeded_at IS NOT NULL) AS timed) AS by_saga
    WHERE saga IS NOT NULL
    GROUP BY saga, step, direction, up_to_seconds
    ON CONFLICT (saga, step, direction, up_to_seconds) DO UPDATE
    SET steps = stored.steps + excluded.steps,
        total_duration = stored.total_duration + excluded.total_duration""",  # noqa: S608 - constants
)
