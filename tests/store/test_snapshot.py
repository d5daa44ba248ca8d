"""The state of a run as one JSON document."""

from datetime import UTC, datetime

import orjson

from saga_engine.decider.run import Run
from saga_engine.store.snapshot import SNAPSHOT_FIELDS, restore_run, to_snapshot
from tests.kit.stored_runs import decide_start


def test_a_run_is_restored_from_what_never_changes_and_its_snapshot():
    run = decide_start(datetime(2026, 11, 15, tzinfo=UTC)).run
    assert run is not None
    identity = Run(
        run_id=run.run_id,
        saga=run.saga,
        version=run.version,
        fingerprint=run.fingerprint,
        key=run.key,
        input=None,
        started_at=run.started_at,
        deadline=run.deadline,
    )
    snapshot = orjson.loads(orjson.dumps(to_snapshot(run)))
    assert set(snapshot) <= set(SNAPSHOT_FIELDS)
    assert restore_run(identity, snapshot) == run
