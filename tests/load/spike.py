"""Fifty thousand runs at once: one worker, one slow participant, and what becomes of them."""

import pytest

from tests.kit.load_environment import (
    COMMAND_QUEUES,
    PeakMonitor,
    load_environment,
    peak_memory,
    print_table,
)

MAX_WAIT_S = 20
GROWTH_MAX = 100
"""
MB a worker may grow under load, whatever the number of runs. It holds `reply_prefetch` replies and
`request_prefetch` requests, at about 8 KB: 6 MB; and `max_concurrent_batches` times `batch_size`
runs with their events and messages, at about 64 KB: 50 MB; and what Python does not give back.
"""


async def run_spike(load, number, *, seconds, **slowness):
    """Ask for many runs at once, and for a few of another saga in the middle; the figures."""
    clock = load.clock
    worker, participant = await load.worker(), await load.participant(**slowness)
    before = peak_memory(worker.pid)
    async with PeakMonitor(load, worker=worker, participant=participant) as watch:
        began = clock()
        await load.start(number)
        asked = clock() - began
        late_began = clock()
        await load.start(MAX_WAIT_S, saga="reserve-only")
        await load.ends("reserve-only", MAX_WAIT_S, patience=seconds)
        late = clock() - late_began
        unfinished = number - (await load.ended()).total()
        await load.all_ended(patience=seconds)
        drained = clock() - began
    ended, extra = await load.ended(), await load.extra_attempts()
    figures = {
        "runs": number,
        **ended,
        "seconds to ask for all": round(asked, 1),
        "seconds to drain": round(drained, 1),
        "runs/s": round(number / drained, 1),
        "worker before the load, MB": before,
        **dict(sorted(watch.peaks.items())),
        "commands sent again": extra,
        "longest without progress, s": round(await load.longest_wait(), 1),
        f"{MAX_WAIT_S} late runs of another saga, s": round(late, 1),
        "unfinished when those had ended": unfinished,
    }
    print_table(f"{number} runs at once", figures)
    assert dict(ended) == {"completed": number}
    assert extra <= number // 100
    assert unfinished > number // 2, "the late ones had no backlog before them"
    assert max(watch.peaks[queue] for queue in COMMAND_QUEUES) <= 2000
    assert watch.peaks["worker, MB"] <= before + GROWTH_MAX
    return figures


@pytest.mark.rabbitmq
@pytest.mark.timeout(3600)
async def test_50000_runs_at_once_all_complete_and_the_worker_stays_small(
    rabbitmq_url, migrated_url, tmp_path
):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        slowness = {"SAGA_ENGINE_PARTICIPANT_CONCURRENCY": "4", "SLOW_SECONDS": "0.005"}
        figures = await run_spike(place, 50_000, seconds=3000, **slowness)
    assert figures["longest without progress, s"] < 30
