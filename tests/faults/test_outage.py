"""A participant is away for a while; `make load` does the same for ten minutes."""

import pytest

from tests.kit.load_environment import load_environment
from tests.load.outage import run_outage


@pytest.mark.rabbitmq
async def test_commands_wait_for_a_participant_that_is_away_and_copies_do_not_pile_up(
    rabbitmq_url, migrated_url, tmp_path
):
    """Its first timeout is over after 2 s, and then one comes each 5."""
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        quick = {"OUTAGE_TIMEOUT": "2", "OUTAGE_PAUSE": "3"}
        await run_outage(place, migrated_url, 10, copies_max=4, environment=quick)
