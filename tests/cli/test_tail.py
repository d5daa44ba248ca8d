import asyncio
import json
import signal

import pytest
from sqlalchemy import make_url

from saga_engine.cli.tail import WAITING
from saga_engine.events import Append, EventData, Events, MessageContext
from saga_engine.settings import Settings
from tests.kit.command_line import environment, exit_code_of, running_command, saga_engine
from tests.kit.event_database import connected, number_in, placed
from tests.kit.fork_server import COMMAND

_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
HEADER = ["position", "at", "stream", "version", "event", "data"]


@pytest.fixture
async def event_store(migrated_url):
    async with Events(migrated_url, settings=Settings()) as client:
        yield client


async def test_tail_prints_events_as_they_are_appended_until_a_signal(event_store, migrated_url):
    await event_store.append(Append("order-1", [placed(1)]))
    async with running_command("tail", database_url=migrated_url) as process:
        assert await _cells(process) == HEADER
        await event_store.append(Append("order-2", [placed(2)]))
        first = await _cells(process)
        assert first[2:] == ["order-2", "1", "order-placed", '{"number":2}']
        await event_store.append(Append("order-2", [placed(3)]))
        second = await _cells(process)
        assert second[2:] == ["order-2", "2", "order-placed", '{"number":3}']
        assert int(first[0]) < int(second[0])
        process.send_signal(signal.SIGINT)
        assert await exit_code_of(process) == 0
        assert (await process.stderr.read()).decode() == f"{WAITING}\n"


async def test_from_begins_at_a_position_and_each_line_is_a_document(event_store, migrated_url):
    await event_store.append(Append("order-1", [placed(1), placed(2), placed(3)]))
    _, second, _ = [each async for each in event_store.read_all()]
    async with running_command(
        *("tail", "--from", str(second.position), "--json"), database_url=migrated_url
    ) as process:
        documents = [await _document(process) for _ in range(2)]
    assert [each["schema_version"] for each in documents] == [1, 1]
    assert [each["event"]["data"] for each in documents] == [{"number": 2}, {"number": 3}]
    assert documents[0]["event"]["id"] == str(second.id)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--stream", "order-*", "--stream", "cart-1"), [1, 2, 3, 5]),
        (("--type", "order-placed", "--type", "cart-closed"), [1, 2, 4, 5]),
        (("--correlation", "c-1"), [2, 5]),
        (("--stream", "order-*", "--type", "order-placed", "--correlation", "c-1"), [2]),
    ],
)
async def test_tail_prints_only_the_events_that_its_options_select(
    options, expected, event_store, migrated_url
):
    context = MessageContext(correlation_id="c-1")
    cancelled, closed = (
        EventData(name, 1, {"number": n})
        for name, n in (("order-cancelled", 3), ("cart-closed", 5))
    )
    await event_store.append(Append("order-1", [placed(1)]))
    await event_store.append(Append("order-2", [placed(2)]), context=context)
    await event_store.append(Append("order-1", [cancelled]), Append("bill-1", [placed(4)]))
    await event_store.append(Append("cart-1", [closed]), context=context)
    assert sorted([number_in(each) async for each in event_store.read_all()]) == [1, 2, 3, 4, 5]
    async with running_command(
        *("tail", "--from", "1", "--json", *options), database_url=migrated_url
    ) as process:
        documents = [await _document(process) for _ in expected]
        process.send_signal(signal.SIGTERM)
        rest = await process.stdout.read()
    assert [each["event"]["data"]["number"] for each in documents] == expected
    assert rest == b""


async def test_tail_ends_when_its_reader_has_ended(event_store, migrated_url):
    await event_store.append(Append("order-1", [placed(n) for n in range(5)]))
    shell = f"{COMMAND} tail --from 1 | head -2; exit ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", shell),
        env=environment(database_url=migrated_url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(process.communicate())
        while not ended.done():  # it notices when it prints the next event
            await event_store.append(Append("order-1", [placed(9)]))
            await asyncio.wait([ended], timeout=0.2)
    out, err = ended.result()
    assert out.splitlines()[0].decode().split("\t") == HEADER
    assert (process.returncode, len(out.splitlines()), err) == (0, 2, b"")


async def test_tail_prints_how_to_continue_when_the_database_is_lost(event_store, migrated_url):
    await event_store.append(Append("order-1", [placed(1)]))
    [event] = [each async for each in event_store.read_all()]
    url = make_url(migrated_url)
    server = url.set(database="postgres").render_as_string(hide_password=False)
    options = ("--from", "1", "--stream", "order-*")
    async with running_command("tail", *options, database_url=migrated_url) as process:
        await _cells(process)
        await _cells(process)
        async with connected(server) as connection:
            await connection.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
            await connection.execute(_END_SESSIONS, url.database)
            assert await exit_code_of(process) == 5
        printed = (await process.stderr.read()).decode()
    command = f"saga-engine tail --from {event.position + 1} --stream 'order-*'"
    assert f"To continue, when the database is available: {command}" in printed


async def test_an_invalid_position_or_pattern_is_a_sentence(migrated_url):
    for options in (("--from", 0), ("--from", 10**30), ("--from", 1, "--stream", "a*b")):
        ran = await saga_engine("tail", *options, database_url=migrated_url)
        assert (ran.exit_code, len(ran.err.splitlines())) == (2, 1), ran.err


async def _cells(process):
    async with asyncio.timeout(20):
        line = await process.stdout.readline()
    return line.decode().rstrip("\n").split("\t")


async def _document(process):
    async with asyncio.timeout(20):
        return json.loads(await process.stdout.readline())
