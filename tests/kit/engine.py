"""The engine harness: workers in this process, scripted participants, clients that send bytes."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from pamqp.commands import Basic

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import decode_client_message
from saga_engine.protocol.command import ReceivedCommand, decode_command
from saga_engine.protocol.message import Message
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.topology import client_topology, participant_queue, participant_topology
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    Emitter,
    ProcessReady,
)
from saga_engine.vocabulary import ConnectionRole, Failure, Outcome
from saga_engine.worker.worker import Worker
from tests.kit.connections import open_connection, raw_channel
from tests.kit.events import WAIT_TIMEOUT_S, EventRecorder
from tests.kit.held_runs import runs_held_by
from tests.kit.parcels import COMMANDS, parcels

FAST_SETTINGS = {
    "poll_interval": 0.02,
    "outbox_cleanup_interval": 0.05,
    "broker_reconnect_backoff": 0.01,
    "broker_reconnect_backoff_max": 0.1,
    "shutdown_timeout": 5.0,
}


class RunningWorker:
    """A running worker; `stop` shuts it down gracefully, `crash` ends it as SIGKILL would."""

    def __init__(self, group, worker, events):
        self.worker, self.events = worker, events
        self._stop = asyncio.Event()
        self._task = group.create_task(worker.run(self._stop))

    def held_runs(self):
        """The runs in its cache."""
        return runs_held_by(self.worker._loops._transactions)

    async def stop(self):
        self._stop.set()
        await asyncio.wait([self._task])
        self._task.result()
        await self.worker.__aexit__(None, None, None)

    async def crash(self):
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.worker.__aexit__(None, None, None)


class ScriptedParticipant:
    """
    A participant that a test controls.

    `reply_makers[command]` makes the replies to a command; by default it succeeds.
    """

    def __init__(self, publisher):
        self.reply_makers: defaultdict[str, Callable[..., Any]] = defaultdict(lambda: succeed)
        self.received = []
        self._publisher = publisher
        self._changed = asyncio.Event()

    @property
    def command_names(self):
        """The names of the received commands, in order."""
        return [each.command.name for each in self.received]

    async def wait_for_commands(self, name, count=1):
        """Wait for `count` commands of a name; return the first ones."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while self.command_names.count(name) < count:
                self._changed.clear()
                await self._changed.wait()
        return [each for each in self.received if each.command.name == name][:count]

    async def publish(self, *messages):
        """Publish replies."""
        return await self._publisher.publish(messages)

    async def serve(self, consumer):
        while deliveries := await consumer.take(100):
            for delivery in deliveries:
                command = decode_command(delivery, Settings())
                assert isinstance(command, ReceivedCommand), command
                self.received.append(command)
                self._changed.set()
                await self._publisher.publish(self.reply_makers[command.command.name](command))
            await consumer.acknowledge(deliveries)


def succeed(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {"did": command.command.name})]


def reject(command):
    return [encode_reply(command, Outcome.REJECTED, Failure("no", "Not today."))]


def fail(command):
    return [encode_reply(command, Outcome.FAILED, Failure("trouble", "It broke."))]


def forge_token(command):
    """Return a correlation id with the form of a token that the engine has not signed."""
    first, others = command.correlation_id[0], command.correlation_id[1:]
    return ("y" if first == "x" else "x") + others


def no_reply(_command):
    return []


def reply_twice(command):
    return succeed(command) + succeed(command)


class RequestClient:
    """A client that sends requests unchecked and records every answer."""

    def __init__(self, publisher, queue):
        self.answers = {}
        self._publisher, self._queue = publisher, queue
        self._changed = asyncio.Event()

    async def consume(self, consumer):
        while deliveries := await consumer.take(100):
            for delivery in deliveries:
                event = decode_client_message(delivery, Settings())
                self.answers.setdefault(delivery.correlation_id, []).append(event)
            self._changed.set()
            await consumer.acknowledge(deliveries)

    async def call(self, verb, **body):
        """Send one request and wait for its answer."""
        [answer] = await self.call_all((verb, body))
        return answer

    async def call_all(self, *requests):
        """Send requests in one write and wait for their answers, in order."""
        return await self.wait_for_answers(await self.send(*requests))

    async def send(self, *requests):
        """Send requests in one write; return their correlation ids for `wait_for_answers`."""
        messages = [self.request(verb, **body) for verb, body in requests]
        outcomes = await self._publisher.publish(messages)
        assert set(outcomes) == {"confirmed"}, outcomes
        return [message.correlation_id for message in messages]

    async def wait_for_answers(self, correlation_ids):
        """Wait for the answers, in order."""
        return [await self.wait_for_answer(each) for each in correlation_ids]

    def request(self, verb, **body):
        return Message(
            exchange="saga.requests",
            routing_key=verb,
            body=json.dumps(body).encode(),
            message_id=uuid4().hex,
            type=verb,
            correlation_id=uuid4().hex,
            reply_to=self._queue,
        )

    async def wait_for_answer(self, correlation_id):
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while correlation_id not in self.answers:
                self._changed.clear()
                await self._changed.wait()
        return self.answers[correlation_id][0]

    async def start(self, saga="parcel", *, run_id=None, **body):
        """Start a run; return its id."""
        run_id = run_id or str(uuid7())
        answer = await self.call("start", run_id=run_id, saga=saga, **{"input": {}, **body})
        assert answer.outcome == "accepted", answer
        return run_id


class EngineHarness:
    """The broker, the database, workers, participants and clients of one test."""

    def __init__(self, owned, group, broker_url, database_url, settings):
        self._owned, self._group = owned, group
        self.broker_url, self.database_url = broker_url, database_url
        self.settings = settings
        self.database: Database
        self._workers: list[RunningWorker] = []

    async def start_worker(self, *sagas, broker_url=None, database_url=None, **changes):
        """Start a worker; by default it loads the parcel saga."""
        events = EventRecorder()
        settings = Settings(
            database_url=database_url or self.database_url,
            broker_url=broker_url or self.broker_url,
            **{**FAST_SETTINGS, **self.settings, **changes},
        )
        worker = Worker(sagas or [parcels()], settings, Emitter(events))
        running = RunningWorker(self._group, await self._owned.enter_async_context(worker), events)
        self._owned.push_async_callback(running.crash)
        self._workers.append(running)
        await events.wait_for(ProcessReady)
        return running

    def held_runs(self):
        """The runs that each worker holds in memory, or held at its end, for `check_promises`."""
        return [run for each in self._workers for run in each.held_runs()]

    def forget_held_runs(self):
        """Check no longer what the workers hold so far: a test changes the journals itself."""
        self._workers.clear()

    async def start_participant(self, commands=COMMANDS, name="shop"):
        """Start a participant."""
        topology = participant_topology(name, commands)
        participant = ScriptedParticipant(await self._publisher())
        consumer = await self._consumer(topology, participant_queue(name))
        self._run_in_background(participant.serve(consumer))
        return participant

    async def connect_client(self):
        """Connect a client."""
        queue = f"saga.client.{uuid4().hex}"
        topology = client_topology(queue)
        client = RequestClient(await self._publisher(), queue)
        self._run_in_background(client.consume(await self._consumer(topology, queue)))
        return client

    async def publish_raw(
        self, body, *, exchange="saga.replies", routing_key="saga.replies", **fields
    ):
        """Publish bytes with any properties, as another program might."""
        async with raw_channel(self.broker_url) as channel:
            properties = Basic.Properties(delivery_mode=2, **fields)
            await channel.basic_publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties
            )

    async def _publisher(self):
        return Publisher(
            await self._owned.enter_async_context(
                open_connection(self.broker_url, ConnectionRole.PUBLISH)
            )
        )

    async def _consumer(self, topology, queue):
        link = await self._owned.enter_async_context(
            open_connection(self.broker_url, topology=topology)
        )
        return await self._owned.enter_async_context(Consumer(link, [queue]))

    def _run_in_background(self, coroutine):
        task = self._group.create_task(coroutine)

        async def end():
            task.cancel()
            await asyncio.wait([task])

        self._owned.push_async_callback(end)


# A test may hold locks for longer than a worker may.
SLOW_TEST_SETTINGS = Settings(database_transaction_timeout=60.0)


@asynccontextmanager
async def engine_harness(broker_url, database_url, **settings):
    """The engine harness of one test; everything in it ends with the test."""
    async with asyncio.TaskGroup() as group, AsyncExitStack() as owned:
        engine = EngineHarness(owned, group, broker_url, database_url, settings)
        engine.database = await owned.enter_async_context(
            Database(database_url, SLOW_TEST_SETTINGS)
        )
        yield engine
