"""An engine for every test of the worker, and its promises checked at the end of each."""

import pytest

from tests.kit.engine import engine_harness
from tests.kit.promises import check_promises


@pytest.fixture
async def engine(development_broker, migrated_url):
    """On the development broker: quick, and with faults on demand."""
    async with engine_harness(development_broker.url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False)


@pytest.fixture
async def engine_on_any_broker(broker_url, migrated_url):
    """On the development broker and on RabbitMQ."""
    async with engine_harness(broker_url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False)
