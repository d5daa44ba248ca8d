"""Fixtures for tests that send hostile messages: RabbitMQ with its policy, or any broker."""

import json

import pytest

from saga_engine.protocol.topology import queue_policy
from tests.hostile.harness import hostile_harness
from tests.kit.engine import engine_harness


@pytest.fixture
async def harness(broker_url, migrated_url):
    """The test runs on the development broker and on RabbitMQ."""
    async with (
        engine_harness(broker_url, migrated_url) as engine,
        hostile_harness(engine) as harness,
    ):
        yield harness


@pytest.fixture
async def harness_with_policy(rabbitmq, rabbitmq_url, migrated_url):
    """On RabbitMQ under the policy that `saga-engine topology --policy` prints."""
    policy, vhost = queue_policy(), rabbitmq_url.rpartition("/")[2]
    await rabbitmq.rabbitmqctl(
        *("set_policy", "-p", vhost, "--apply-to", policy["apply-to"], policy["name"]),
        *(policy["pattern"], json.dumps(policy["definition"])),
    )
    async with (
        engine_harness(rabbitmq_url, migrated_url) as engine,
        hostile_harness(engine) as harness,
    ):
        yield harness
