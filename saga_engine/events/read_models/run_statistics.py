"""
The read model `run_statistics`: how many runs of each saga have each status.

A run is counted in the status that it has now. Runs that retention has dropped stay counted in
their last one. A status that runs have left has a row with 0, also if they entered and left it in
one batch: the rows do not depend on how batches are cut.
"""

from saga_engine.events.read_models.read_model import ReadModel, events_in_range, saga_of

_TYPES = ("run_started", "run_compensating", "run_completed", "run_compensated", "run_abandoned")

_STATUS_AFTER = """CASE {type}
    WHEN 'run_started' THEN 'running' WHEN 'run_compensating' THEN 'compensating'
    WHEN 'run_completed' THEN 'completed' WHEN 'run_compensated' THEN 'compensated'
    ELSE 'abandoned' END"""

# Of the few events that more than one status can precede, the journal of the run is read. Its rows
# are in the order of their revisions as well. By position PostgreSQL would read the rows of all
# runs backwards until it finds one of this run.
_STATUS_BEFORE = f"""(
    SELECT {_STATUS_AFTER.format(type="b.event->>'type'")}
    FROM saga_engine.journal AS p,
        LATERAL jsonb_array_elements(p.events) WITH ORDINALITY AS b(event, place)
    WHERE p.run_id = e.run_id AND (p.position, b.place) < (e.position, e.place)
        AND b.event->>'type' IN ('run_started', 'run_compensating', 'run_compensated')
    ORDER BY p.revision DESC, b.place DESC LIMIT 1)"""  # noqa: S608 - constants

RUN_STATISTICS = ReadModel.of_table(
    "run_statistics",
    f"""
    INSERT INTO saga_engine.run_statistics AS stored (saga, status, runs)
    SELECT saga, status, sum(runs)::bigint
    FROM (
        SELECT {saga_of("by_run")} AS saga, status, runs
        FROM (
            SELECT e.run_id, changed.status, sum(changed.runs) AS runs
            FROM ({events_in_range(_TYPES)}) AS e,
                LATERAL (VALUES ({_STATUS_AFTER.format(type="e.type")}, 1),
                    (CASE WHEN e.type = 'run_started' THEN NULL
                        WHEN e.type = 'run_completed' THEN 'running'
                        WHEN e.type = 'run_compensated' THEN 'compensating'
                        WHEN e.type = 'run_compensating'
                            AND e.data->'cause'->>'code' <> 'late_success' THEN 'running'
                        ELSE {_STATUS_BEFORE} END, -1)) AS changed(status, runs)
            WHERE changed.status IS NOT NULL
            GROUP BY e.run_id, changed.status) AS by_run) AS by_saga
    WHERE saga IS NOT NULL
    GROUP BY saga, status
    ON CONFLICT (saga, status) DO UPDATE SET runs = stored.runs + excluded.runs""",  # noqa: S608 - constants
)
