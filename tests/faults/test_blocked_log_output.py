"""Where a worker's log goes is full, or nobody reads it: the runs go on."""

import os
from pathlib import Path

import pytest

from tests.kit.load_environment import load_environment

SERVICES = "examples.place_order.services"
RUNS = 200
PIPE = 65_536
LOUD = {"SAGA_ENGINE_LOG_LEVEL": "debug", "SAGA_ENGINE_SHUTDOWN_TIMEOUT": "5"}


@pytest.mark.rabbitmq
async def test_a_worker_whose_log_is_full_completes_its_runs(rabbitmq_url, migrated_url, tmp_path):
    """Every write to /dev/full fails with ENOSPC (full(4))."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path, **LOUD) as place:
        place.directory = Path("/dev")
        worker = await place.start_worker("examples.place_order.sagas", name="full")
        place.directory = tmp_path
        await place.start_participant(SERVICES)
        await place.start_runs(RUNS)
        await place.wait_for_all_ended()
        assert dict(await place.ended_by_status()) == {"completed": RUNS}
        assert await worker.drain() == 0


@pytest.mark.rabbitmq
async def test_a_worker_whose_log_nobody_reads_completes_its_runs(
    rabbitmq_url, migrated_url, tmp_path
):
    """A pipe holds 64 KiB (pipe(7)); whoever should read it, a sidecar perhaps, is stuck."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with load_environment(migrated_url, rabbitmq_url, tmp_path, **LOUD) as place:
            worker = await place.start_worker("examples.place_order.sagas", name="pipe")
            await place.start_participant(SERVICES)
            await place.start_runs(RUNS)
            await place.wait_for_all_ended()
            assert dict(await place.ended_by_status()) == {"completed": RUNS}
            assert await worker.drain() == 0
            # Its pages are not all full to the last byte.
            assert len(os.read(reader, PIPE)) > 0.8 * PIPE, "it was never full"
    finally:
        os.close(reader)
