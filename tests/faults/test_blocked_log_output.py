"""A worker whose log cannot be written or is not read completes its runs."""

import os
from pathlib import Path

import pytest

from tests.kit.load_environment import load_environment

SERVICES = "examples.place_order.services"
RUNS = 200
PIPE = 65_536
SETTINGS = {"SAGA_ENGINE_LOG_LEVEL": "debug", "SAGA_ENGINE_SHUTDOWN_TIMEOUT": "5"}


@pytest.mark.rabbitmq
async def test_a_worker_whose_log_is_full_completes_its_runs(rabbitmq_url, migrated_url, tmp_path):
    """Every write to /dev/full fails with ENOSPC (full(4))."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path, **SETTINGS) as load:
        load.directory = Path("/dev")
        worker = await load.start_worker("examples.place_order.sagas", name="full")
        load.directory = tmp_path
        await load.start_participant(SERVICES)
        await load.start_runs(RUNS)
        await load.wait_for_all_ended()
        assert dict(await load.ended_by_status()) == {"completed": RUNS}
        assert await worker.terminate() == 0


@pytest.mark.rabbitmq
async def test_a_worker_whose_log_is_not_read_completes_its_runs(
    rabbitmq_url, migrated_url, tmp_path
):
    """A pipe holds 64 KiB (pipe(7)); its reader, for example a sidecar, hangs."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with load_environment(migrated_url, rabbitmq_url, tmp_path, **SETTINGS) as load:
            worker = await load.start_worker("examples.place_order.sagas", name="pipe")
            await load.start_participant(SERVICES)
            await load.start_runs(RUNS)
            await load.wait_for_all_ended()
            assert dict(await load.ended_by_status()) == {"completed": RUNS}
            assert await worker.terminate() == 0
            # Not every page of a pipe is full to the last byte.
            assert len(os.read(reader, PIPE)) > 0.8 * PIPE, "it was never full"
    finally:
        os.close(reader)
