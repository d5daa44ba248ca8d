"""A house for every test that sends hostile messages: on RabbitMQ with its policy, or without."""

import json

import pytest

from saga_engine.protocol.topology import policy
from tests.hostile.house import house_on
from tests.worker.engine import engine_on


@pytest.fixture
async def house(broker_url, migrated_url):
    """On the development broker and on RabbitMQ."""
    async with engine_on(broker_url, migrated_url) as engine, house_on(engine) as house:
        yield house


@pytest.fixture
async def policed(rabbitmq, rabbitmq_url, migrated_url):
    """On RabbitMQ under the policy that `saga-engine topology --policy` prints."""
    found, vhost = policy(), rabbitmq_url.rpartition("/")[2]
    await rabbitmq.ctl(
        *("set_policy", "-p", vhost, "--apply-to", found["apply-to"], found["name"]),
        *(found["pattern"], json.dumps(found["definition"])),
    )
    async with engine_on(rabbitmq_url, migrated_url) as engine, house_on(engine) as house:
        yield house
