"""`saga-engine consumers` and `saga-engine consume`, on a real database and broker."""

import pytest

from tests.kit.command_line import http_get, read_log_until, running_command, saga_engine
from tests.kit.consumers import (
    applying,
    billing_consumer,
    message_of,
    open_failures,
    order,
    registered_consumer,
)

MODULE = "tests.kit.billing_module"


@pytest.fixture
async def stopped(migrated_url):
    """The database of a consumer that is stopped at an event, and has kept a message."""
    async with registered_consumer(migrated_url) as database:
        async with applying(database, billing_consumer()) as (batches, _):
            await batches.apply([message_of({}, body=b""), order(1), order(2, "poison")])
        yield database


async def command(url, *words):
    return await saga_engine("consumers", *words, database_url=url)


@pytest.mark.usefixtures("stopped")
async def test_a_consumer_is_listed_and_shown(migrated_url):
    (listed,) = (await command(migrated_url, "list", "--json")).json["consumers"]
    assert (listed["name"], listed["partition"], listed["state"]) == ("billing", 0, "stopped")
    assert (listed["source"], listed["failures"]) == ("queue saga.consumer.billing", 2)
    assert (listed["applied"], listed["kept_messages"], listed["next_offset"]) == (1, 1, None)
    shown = (await command(migrated_url, "show", "billing", "--json")).json["consumer"]
    assert [each["kind"] for each in shown["failures"]] == ["unreadable", "stopped"]
    ran = await command(migrated_url, "show", "billing")
    assert "placed raised ValueError." in ran.out
    assert "saga.consumer.billing" in (await command(migrated_url, "list")).out


async def test_an_operator_acts_and_is_recorded(stopped, migrated_url):
    failure = (await open_failures(stopped))[-1]
    why = ("--reason", "a test", "--operator", "mara")
    ran = await command(migrated_url, "skip", "billing", failure.id, *why)
    assert ran.out == f"billing goes on without the message of failure {failure.id}.\n"
    ran = await command(migrated_url, "retry", "billing", *why)
    assert ran.out == "billing tries 1 failure again.\n"
    assert (await command(migrated_url, "pause", "billing")).out == "billing is paused.\n"
    ran = await command(migrated_url, "resume", "billing", "--json")
    assert ran.json["resumed"] == "billing"
    shown = (await command(migrated_url, "show", "billing", "--json")).json["consumer"]
    actions = [(each["action"], each["position"]) for each in reversed(shown["actions"])]
    assert actions == [("skip", failure.id), ("retry", None), ("pause", None), ("resume", None)]
    assert shown["actions"][-1]["operator"] == "mara"


@pytest.mark.usefixtures("stopped")
async def test_what_is_unknown_or_not_possible_has_its_exit_code(migrated_url):
    assert (await command(migrated_url, "show", "other")).exit_code == 3
    assert (await command(migrated_url, "resume", "billing")).exit_code == 4


async def test_a_database_without_consumers_has_an_empty_list(migrated_url):
    assert "No process has registered a consumer." in (await command(migrated_url, "list")).err


@pytest.mark.parametrize("broker_url", ["development"], indirect=True)
async def test_a_process_of_consumers_reports_itself(migrated_url, broker_url):
    async with registered_consumer(migrated_url):
        process = running_command(
            *("consume", MODULE, "--port", "0"), database_url=migrated_url, broker_url=broker_url
        )
        async with process as started:
            listening = await read_log_until(started, "http.listening")
            await read_log_until(started, "process.ready")
            url = f"http://{listening['event'].split()[-1]}"
            assert (await http_get(f"{url}/readyz"))[0] == 200
            metrics = (await http_get(f"{url}/metrics"))[1]
            assert 'saga_consumer_events_total{consumer="billing",outcome="applied"} 0.0' in metrics
            started.terminate()
            assert await started.wait() == 0


async def test_a_module_without_a_consumer_or_a_database_is_a_sentence(migrated_url):
    ran = await saga_engine("consume", "tests.kit.events", database_url=migrated_url)
    assert (ran.exit_code, "declares no Consumer" in ran.err) == (2, True)
    ran = await saga_engine("consume", MODULE)
    assert (ran.exit_code, "DATABASE_URL" in ran.err) == (2, True)


async def test_a_module_is_checked():
    ran = await saga_engine("check", MODULE)
    assert ran.out == "billing: consumer of 2 events, valid\n"
    (found,) = (await saga_engine("check", MODULE, "--json")).json["consumers"]
    assert found["name"] == "billing"
