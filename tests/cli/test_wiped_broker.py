"""What docs/operations.md says of a RabbitMQ that comes back empty while everything runs."""

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import saga_engine
from tests.cli.test_services import ORDER, SAGAS, SERVICES, serving, told
from tests.kit.programs import wait_until_true
from tests.kit.rabbitmq import RabbitMQServer

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "operations.md").read_text().split())


async def declared(server: RabbitMQServer) -> set[str]:
    """List exchanges, queues and bindings of the engine and of participants."""
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


async def kept(server: RabbitMQServer) -> tuple[str, str]:
    """Users and policies."""
    users, policies = (
        await server.rabbitmqctl("list_users"),
        await server.rabbitmqctl("list_policies"),
    )
    return users, policies


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_an_empty_broker_has_its_topology_again_and_not_its_users_and_its_policy(
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
            serving("worker", SAGAS, "--port", "0", **urls) as worker,
            serving("participant", SERVICES, "--port", "0", **urls) as participant,
        ):
            for process in (worker, participant):
                await told(process, "process.ready")
            shown = await saga_engine("topology", "--policy", **urls)
            await server.rabbitmqctl(*shlex.split(shown.out)[1:])
            await server.rabbitmqctl("add_user", "desk", "secret")
            assert await completes()
            before, (users, policies) = await declared(server), await kept(server)
            assert "desk" in users
            assert "saga-engine" in policies
            await server.restart(wipe_data=True)
            await wait_until_true(completes, patience=120.0)
            users, policies = await kept(server)
            assert await declared(server) == before
            assert "desk" not in users
            assert "saga-engine" not in policies
            assert worker.returncode is None
            assert participant.returncode is None
