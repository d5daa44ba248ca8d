"""The promises of docs/operations.md about a RabbitMQ that loses its data while processes run."""

import json
import shlex
from pathlib import Path

import pytest

from tests.kit.command_line import read_log_until, running_command, saga_engine
from tests.kit.place_order import ORDER, SAGAS, SERVICES
from tests.kit.programs import wait_until_true
from tests.kit.rabbitmq import RabbitMQServer

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "operations.md").read_text().split())


async def list_topology(server: RabbitMQServer) -> set[str]:
    """The exchanges, queues and bindings of the engine and of participants."""
    listings = (
        ("list_exchanges", "name", "type", "durable"),
        ("list_queues", "name", "type", "durable"),
        ("list_bindings", "source_name", "destination_name", "routing_key"),
    )
    found: set[str] = set()
    for listing in listings:
        lines = (await server.rabbitmqctl(*listing)).splitlines()
        found |= {line for line in lines if "saga." in line and "saga.client" not in line}
    return found


async def list_users_and_policies(server: RabbitMQServer) -> tuple[str, str]:
    """The users and the policies."""
    users, policies = (
        await server.rabbitmqctl("list_users"),
        await server.rabbitmqctl("list_policies"),
    )
    return users, policies


@pytest.mark.long
@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_an_empty_broker_gets_its_topology_again_but_not_users_and_policy(
    migrated_url,
):
    assert "Users, their permissions and the policy are lost with it" in PAGE
    assert "Workers and participants declare the rest." in PAGE
    async with RabbitMQServer() as server:
        urls = {"database_url": migrated_url, "broker_url": server.url}
        order = json.dumps(ORDER | {"card": "ok"})

        async def completes() -> bool:
            start = ("start", "place-order", "--wait", "--json", "--timeout", "30", "--input")
            return (await saga_engine(*start, order, **urls)).exit_code == 0

        async with (
            running_command("worker", SAGAS, "--port", "0", **urls) as worker,
            running_command("participant", SERVICES, "--port", "0", **urls) as participant,
        ):
            for process in (worker, participant):
                await read_log_until(process, "process.ready")
            shown = await saga_engine("topology", "--policy", **urls)
            await server.rabbitmqctl(*shlex.split(shown.out)[1:])
            await server.rabbitmqctl("add_user", "desk", "secret")
            assert await completes()
            before, (users, policies) = (
                await list_topology(server),
                await list_users_and_policies(server),
            )
            assert "desk" in users
            assert "saga-engine" in policies
            await server.restart(wipe_data=True)
            await wait_until_true(completes, patience=120.0)
            users, policies = await list_users_and_policies(server)
            assert await list_topology(server) == before
            assert "desk" not in users
            assert "saga-engine" not in policies
            assert worker.returncode is None
            assert participant.returncode is None
