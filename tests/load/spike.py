"""50,000 runs at once with one worker and one slow participant."""

import pytest

from tests.kit.figures import print_table
from tests.kit.load_environment import (
    COMMAND_QUEUES,
    LoadEnvironment,
    PeakMonitor,
    load_environment,
    peak_memory,
)

LATE_RUNS = 20
MAX_GROWTH_MB = 100
"""
How much a worker may grow under load, for any number of runs. It holds `reply_prefetch` replies and
`request_prefetch` requests of about 8 KB: 6 MB; and `max_concurrent_batches` times `batch_size`
runs with their events and messages, about 64 KB each: 50 MB; and memory that Python does not
release.
"""


async def run_spike(load: LoadEnvironment, number, *, seconds, **slowness):
    """Start many runs at once, then a few of another saga; the measured figures."""
    clock = load.clock
    worker, participant = await load.start_worker(), await load.start_participant(**slowness)
    before = peak_memory(worker.pid)
    async with PeakMonitor(load, worker=worker, participant=participant) as monitor:
        started_at = clock()
        await load.start_runs(number)
        start_seconds = clock() - started_at
        late_started_at = clock()
        await load.start_runs(LATE_RUNS, saga="reserve-only")
        await load.wait_for_ended("reserve-only", LATE_RUNS, patience=seconds)
        late = clock() - late_started_at
        unfinished = number - (await load.ended_by_status()).total()
        await load.wait_for_all_ended(patience=seconds)
        total_seconds = clock() - started_at
    ended, extra = await load.ended_by_status(), await load.extra_attempts()
    figures = {
        "runs": number,
        **ended,
        "seconds to start all": round(start_seconds, 1),
        "seconds to finish all": round(total_seconds, 1),
        "runs/s": round(number / total_seconds, 1),
        "worker before the load, MB": before,
        **dict(sorted(monitor.peaks.items())),
        "commands sent again": extra,
        "longest without progress, s": round(await load.longest_wait(), 1),
        f"{LATE_RUNS} late runs of another saga, s": round(late, 1),
        "unfinished when those had finished": unfinished,
    }
    print_table(f"{number} runs at once", figures)
    assert dict(ended) == {"completed": number}
    assert extra <= number // 100
    assert unfinished > number // 2, "the late runs had no backlog before them"
    assert max(monitor.peaks[queue] for queue in COMMAND_QUEUES) <= 2000
    assert monitor.peaks["worker, MB"] <= before + MAX_GROWTH_MB
    return figures


@pytest.mark.rabbitmq
@pytest.mark.timeout(3600)
async def test_50000_runs_at_once_complete_with_bounded_memory(
    rabbitmq_url, migrated_url, tmp_path
):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        slowness = {"SAGA_ENGINE_PARTICIPANT_CONCURRENCY": "4", "SLOW_SECONDS": "0.005"}
        figures = await run_spike(load, 50_000, seconds=3000, **slowness)
    assert figures["longest without progress, s"] < 30
