"""A participant is unavailable for a while; `make load` does the same for ten minutes."""

import pytest

from tests.kit.load_environment import load_environment
from tests.load.outage import run_outage


@pytest.mark.rabbitmq
async def test_commands_wait_for_an_unavailable_participant_without_piling_up(
    rabbitmq_url, migrated_url, tmp_path
):
    """The first attempt times out after 2 s, and each of the next after 5 s more."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        timing = {"OUTAGE_TIMEOUT": "2", "OUTAGE_PAUSE": "3"}
        await run_outage(load, migrated_url, 10, copies_max=4, environment=timing)
