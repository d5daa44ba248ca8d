"""Under hundreds of the most expensive messages runs progress and no connection is lost."""

import asyncio
import json
import os
import re
from collections import Counter
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import pytest
from sqlalchemy import text

from saga_engine.amqp.consumer import Consumer
from saga_engine.identifiers import uuid7
from saga_engine.protocol.command import encode_command, new_message_id
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REPLIES, REQUESTS
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries
from saga_engine.vocabulary import Command, Direction
from tests.hostile.worst_inputs import BULK_COMMAND, BYTES, WORST_INPUTS, make_start
from tests.kit.connections import open_connection
from tests.kit.engine import engine_harness, no_reply, succeed
from tests.kit.parcels import COMMANDS
from tests.kit.programs import running_program, wait_until_true

MESSAGES = int(os.environ.get("FLOOD_MESSAGES", "300"))
"""1,000 by `make fuzz`; a multiple of CHUNK."""

CONTROL_RUNS, CHUNK = 20, 20
PATIENCE = 600.0
MEMORY_MAX = 400
LONG_TIMEOUTS = {
    "SAGA_ENGINE_DATABASE_TRANSACTION_TIMEOUT": "60",
    "SAGA_ENGINE_BROKER_CONNECT_TIMEOUT": "60",
    "SAGA_ENGINE_BROKER_CONFIRM_TIMEOUT": "60",
    "SAGA_ENGINE_OUTBOX_RESEND_AFTER": "120",
    "SAGA_ENGINE_BROKER_TOPOLOGY_CHECK_INTERVAL": "3600",
}
"""Timeouts for a slow machine; heartbeats keep their default."""
FINISHED = text(
    """
    SELECT count(*) FROM saga_engine.run AS r JOIN saga_engine.definition AS d
        ON d.id = r.definition_id
    WHERE d.name = 'parcel' AND r.status = 'completed'"""
)
HEADERS = {f"x-{number}": "h" * 150 for number in range(90)}


class Log:
    """The log of a process, a line of JSON for each event."""

    def __init__(self, path):
        self._path = path

    def of(self, event):
        """The lines of an event."""
        lines = self._path.read_text().splitlines()
        return [found for line in lines if (found := _parsed(line)).get("event") == event]

    def consumed(self, queue=REQUESTS):
        """The number of messages of each batch of a queue."""
        found = self.of("messages.consumed")
        return [each["messages"] for each in found if each["queue"] == queue]


def _parsed(line):
    return json.loads(line) if line.startswith("{") else {}


def process(engine, kind, path):
    """Run a worker or a participant as a process."""
    environment = {
        "SAGA_ENGINE_DATABASE_URL": engine.database_url,
        "SAGA_ENGINE_BROKER_URL": engine.broker_url,
        "SAGA_ENGINE_LOG_LEVEL": "debug",
        "SAGA_ENGINE_LOG_FORMAT": "json",
        **LONG_TIMEOUTS,
    }
    arguments = (kind, "tests.hostile.worst_inputs", "--port", "0")
    return running_program(*arguments, environment=environment, log=path)


def memory(pid):
    """The peak memory of a process in MB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


async def flood(client):
    """Publish the messages from one client."""
    kinds = islice(cycle(WORST_INPUTS), MESSAGES)
    messages = [
        Message(
            exchange=REQUESTS,
            routing_key="start",
            body=make_start(str(uuid7()), kind),
            message_id=new_message_id(),
            type="start",
            headers=HEADERS if number % 2 else {},
        )
        for number, kind in enumerate(kinds)
    ]
    for first in range(0, MESSAGES, CHUNK):
        outcomes = await client._publisher.publish(messages[first : first + CHUNK])
        assert Counter(outcomes) == {"confirmed": CHUNK}


async def finished(engine):
    """The number of completed runs."""
    async with engine.database.transaction() as tx:
        return (await tx.execute(FINISHED)).scalar_one()


@pytest.mark.rabbitmq
@pytest.mark.timeout(2 * PATIENCE)
async def test_expensive_messages_stop_neither_running_nor_new_runs(
    rabbitmq_url, migrated_url, tmp_path
):
    async with engine_harness(rabbitmq_url, migrated_url) as engine:
        scripted = await engine.start_participant((*COMMANDS, BULK_COMMAND, "bulk.drop"))
        client = await engine.connect_client()
        scripted.reply_makers[BULK_COMMAND] = scripted.reply_makers["parcel.send"] = no_reply
        async with process(engine, "worker", tmp_path / "before") as before:
            await wait_until_true(before.is_ready)
            for _ in range(CONTROL_RUNS):
                await client.send(
                    ("start", {"run_id": str(uuid7()), "saga": "parcel", "input": {}})
                )
            commands = await scripted.wait_for_commands("parcel.send", CONTROL_RUNS)
            assert await before.terminate() == 0
        await flood(client)
        scripted.reply_makers["parcel.send"] = succeed
        for command in commands:
            await scripted.publish(*succeed(command))
        log = Log(tmp_path / "after")
        async with process(engine, "worker", tmp_path / "after") as running:

            async def control_runs_completed(number=CONTROL_RUNS):
                running.assert_running()
                return await finished(engine) >= number

            await wait_until_true(control_runs_completed, patience=PATIENCE, interval=0.2)
            assert sum(log.consumed()) < MESSAGES / 2, "replies do not wait for requests"
            await client.send(("start", {"run_id": str(uuid7()), "saga": "parcel", "input": {}}))
            await wait_until_true(
                lambda: control_runs_completed(CONTROL_RUNS + 1), patience=PATIENCE, interval=0.5
            )
            assert memory(running.pid) < MEMORY_MAX
            assert await running.terminate() == 0
        assert sum(log.consumed()) == MESSAGES + 1, "each message was delivered once"
        assert max(log.consumed()) <= 1 + Settings().max_batch_bytes // BYTES
        lost = [
            each for each in log.of("broker_connection.changed") if each["state"] == "connecting"
        ]
        assert not lost, "RabbitMQ may have blocked connections but closed none"
        assert log.of("internal_error.caught") == log.of("database.unavailable") == []
        async with engine.database.transaction() as tx:
            assert await dead_letter_queries.read_page(tx, limit=1) == []


@pytest.mark.rabbitmq
@pytest.mark.timeout(2 * PATIENCE)
async def test_a_participant_answers_a_full_prefetch_of_expensive_commands(
    rabbitmq_url, migrated_url, tmp_path
):
    number = Settings().participant_prefetch
    async with (
        engine_harness(rabbitmq_url, migrated_url) as engine,
        open_connection(rabbitmq_url, topology=ENGINE_TOPOLOGY) as link,
        Consumer(link, [REPLIES]) as consumer,
        process(engine, "participant", tmp_path / "participant") as running,
    ):
        client = await engine.connect_client()
        await wait_until_true(running.is_ready)
        for kind in islice(cycle(WORST_INPUTS), number):
            outcomes = await client._publisher.publish([command(kind)])
            assert outcomes == ["confirmed"]
        replies: list[Delivery] = []
        async with asyncio.timeout(PATIENCE):
            while len(replies) < number:
                replies += await consumer.take(number)
        assert Counter(reply.headers["saga-outcome"] for reply in replies) == {"succeeded": number}
        assert memory(running.pid) < MEMORY_MAX
        assert await running.terminate() == 0
    assert {
        each["generation"] for each in Log(tmp_path / "participant").of("broker_connection.changed")
    } == {1}


def command(kind):
    """One of the most expensive commands."""
    run_id = uuid7()
    made = Command(
        run_id=str(run_id),
        saga="bulk",
        version=1,
        step="keep",
        direction=Direction.ACTION,
        attempt=1,
        name=BULK_COMMAND,
        idempotency_key=str(run_id),
        payload={"items": WORST_INPUTS[kind]},
        deadline=datetime(2100, 1, 1, tzinfo=UTC),
    )
    return encode_command(made, "token")
