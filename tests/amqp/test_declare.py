"""A topology is declared, or checked where it may not be declared."""

import json

import pytest

from saga_engine.errors import BrokerUnavailable, TopologyMismatch
from saga_engine.protocol.topology import (
    ENGINE_TOPOLOGY,
    client_topology,
    queue_policy,
)
from saga_engine.vocabulary import ConnectionState
from tests.kit.connections import open_connection, open_publisher, raw_channel
from tests.kit.messages import make_message


async def test_engine_topology_can_be_declared_repeatedly(broker_url):
    for _ in range(2):
        async with open_connection(broker_url, topology=ENGINE_TOPOLOGY):
            pass
    async with raw_channel(broker_url) as channel:
        for queue in ("saga.replies", "saga.requests", "saga.dead-letters"):
            assert (await channel.queue_declare(queue, passive=True)).message_count == 0


async def test_reply_reaches_the_engine_by_both_exchanges(broker_url):
    async with open_publisher(broker_url, topology=ENGINE_TOPOLOGY) as publisher:
        outcomes = await publisher.publish(
            [
                make_message("saga.replies", exchange="saga.replies"),
                make_message("saga.replies", exchange=""),
                make_message("elsewhere", exchange="saga.replies"),
                make_message("start", exchange="saga.requests"),
                make_message("", exchange="saga.dead-letters"),
            ]
        )
    assert [outcome.value for outcome in outcomes] == [
        "confirmed", "confirmed", "unroutable", "confirmed", "confirmed"
    ]  # fmt: skip


async def test_queue_with_other_arguments_is_a_mismatch_that_names_it(broker_url):
    async with raw_channel(broker_url) as channel:
        await channel.queue_declare("saga.replies", durable=True)
    with pytest.raises(TopologyMismatch) as caught:
        async with open_connection(broker_url, topology=ENGINE_TOPOLOGY):
            pass
    text = str(caught.value)
    assert "queue 'saga.replies'" in text
    assert "x-queue-type" in text
    assert "delete it" in text


async def test_exchange_of_another_type_is_a_mismatch_that_names_it(broker_url):
    async with raw_channel(broker_url) as channel:
        await channel.exchange_declare("saga.commands", exchange_type="fanout", durable=True)
    with pytest.raises(TopologyMismatch, match=r"exchange 'saga\.commands'.*type"):
        async with open_connection(broker_url, topology=ENGINE_TOPOLOGY):
            pass


async def test_user_without_configure_permission_needs_an_existing_topology(rabbitmq, rabbitmq_url):
    name = f"least-{rabbitmq_url.rpartition('/')[2]}"
    vhost = rabbitmq_url.rpartition("/")[2]
    await rabbitmq.rabbitmqctl("add_user", name, "secret-password")
    await rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, name, "^$", r"^saga\.", r"^saga\.")
    url = rabbitmq_url.replace("guest:guest", f"{name}:secret-password")
    with pytest.raises(BrokerUnavailable, match=r"'saga\.commands' does not exist.*permission"):
        async with open_connection(url):
            pass
    async with open_connection(rabbitmq_url), open_connection(url) as supervised:
        assert supervised.status.generation == 1


async def test_policy_is_accepted_by_the_broker(rabbitmq, rabbitmq_url):
    vhost = rabbitmq_url.rpartition("/")[2]
    found = queue_policy()
    await rabbitmq.rabbitmqctl(
        "set_policy", "-p", vhost, "--apply-to", found["apply-to"],
        "--priority", str(found["priority"]),
        found["name"], found["pattern"], json.dumps(found["definition"]),
    )  # fmt: skip
    async with open_connection(rabbitmq_url, topology=ENGINE_TOPOLOGY):
        pass


@pytest.mark.rabbitmq
@pytest.mark.parametrize("default_type", ["quorum", pytest.param("stream", marks=pytest.mark.long)])
async def test_the_default_queue_type_of_a_virtual_host_changes_nothing(rabbitmq, default_type):
    """The queue of a client is exclusive, which neither of these types can be."""
    name = f"default-{default_type}"
    await rabbitmq.rabbitmqctl("add_vhost", name, "--default-queue-type", default_type)
    try:
        await rabbitmq.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        topology = client_topology("saga.client.tests")
        async with open_connection(rabbitmq.url_of(name), topology=topology) as connection:
            assert connection.status.state is ConnectionState.CONNECTED
        async with open_connection(rabbitmq.url_of(name), topology=ENGINE_TOPOLOGY):
            pass
    finally:
        await rabbitmq.rabbitmqctl("delete_vhost", name)
