"""Many runs at once against one slow participant; `make load` does the same with fifty thousand."""

import pytest

from tests.kit.load_environment import load_environment
from tests.load.spike import run_spike


@pytest.mark.rabbitmq
async def test_more_runs_at_once_than_can_be_answered_in_time_all_complete(
    rabbitmq_url, migrated_url, tmp_path
):
    """The last command would be answered after twelve seconds or more; charge's timeout is 5."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        slowness = {"SAGA_ENGINE_PARTICIPANT_CONCURRENCY": "2", "SLOW_SECONDS": "0.02"}
        await run_spike(place, 400, seconds=90, **slowness)
