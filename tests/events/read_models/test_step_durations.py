"""The read model of durations by step counts each success once, in the row of its duration."""

from collections import defaultdict
from datetime import datetime, timedelta
from math import inf
from random import Random

from saga_engine.events.read_models.step_durations import BOUNDS, STEP_DURATION
from saga_engine.store import journal
from tests.kit.read_models import SAGA, append_random, is_equal_in_any_windows


async def test_a_step_takes_from_its_first_command_to_its_success(database, definition_id):
    histories = await append_random(database, Random(0), definition_id, 300)
    expected = defaultdict(list)
    async with database.transaction() as tx:
        journals = [await journal.read(tx, each.run_id) for each in histories]
    started_at: dict[tuple[object, ...], datetime] = {}
    for run, event in [(n, each) for n, events in enumerate(journals) for each in events]:
        step = run, event.data.get("step"), event.data.get("direction")
        if event.type == "attempt_started":
            started_at.setdefault(step, event.recorded_at)
        elif event.type == "step_succeeded" and not event.data.get("late"):
            duration = event.recorded_at - started_at[step]
            bound = next((each for each in BOUNDS if duration.total_seconds() < each), inf)
            expected[SAGA, step[1], step[2], float(bound)].append(duration)
    found = await is_equal_in_any_windows(database, STEP_DURATION)
    assert {row[:4]: row[4:] for row in found} == {
        key: (len(durations), sum(durations, timedelta())) for key, durations in expected.items()
    }
    assert len({bound for *_, bound in expected}) > 5  # the durations are of many sizes
