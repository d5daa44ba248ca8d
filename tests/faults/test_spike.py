"""Many runs at once against one slow participant; `make load` does the same with 50,000."""

import pytest

from tests.kit.load_environment import load_environment
from tests.load.spike import run_spike


@pytest.mark.rabbitmq
async def test_more_runs_than_a_participant_can_process_in_time_all_complete(
    rabbitmq_url, migrated_url, tmp_path
):
    """The last command would get its reply after 12 s or more; the timeout of charge is 5 s."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        slowness = {"SAGA_ENGINE_PARTICIPANT_CONCURRENCY": "2", "SLOW_SECONDS": "0.02"}
        await run_spike(load, 400, seconds=90, **slowness)
