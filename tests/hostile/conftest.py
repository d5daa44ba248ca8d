"""A house for every test that sends hostile messages: on RabbitMQ with its policy, or without."""

import json

import pytest

from saga_engine.protocol.topology import queue_policy
from tests.hostile.harness import hostile_harness
from tests.kit.engine import engine_harness


@pytest.fixture
async def harness(broker_url, migrated_url):
    """On the development broker and on RabbitMQ."""
    async with engine_harness(broker_url, migrated_url) as engine, hostile_harness(engine) as house:
        yield house


@pytest.fixture
async def harness_with_policy(rabbitmq, rabbitmq_url, migrated_url):
    """On RabbitMQ under the policy that `saga-engine topology --policy` prints."""
    found, vhost = queue_policy(), rabbitmq_url.rpartition("/")[2]
    await rabbitmq.ctl(
        *("set_policy", "-p", vhost, "--apply-to", found["apply-to"], found["name"]),
        *(found["pattern"], json.dumps(found["definition"])),
    )
    async with (
        engine_harness(rabbitmq_url, migrated_url) as engine,
        hostile_harness(engine) as house,
    ):
        yield house
