"""Rolling restarts for some minutes, under load."""

import pytest

from tests.kit.load_environment import load_environment
from tests.kit.rolling import roll


@pytest.mark.rabbitmq
@pytest.mark.timeout(1800)
async def test_ten_rounds_of_rolling_restarts_fail_no_run(rabbitmq_url, migrated_url, tmp_path):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        await roll(load, 10, runs_per_second=40)
