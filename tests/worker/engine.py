"""A worker in this process, participants that do as they are told, and clients that send bytes."""

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
from saga_engine.protocol.answer import decode_event
from saga_engine.protocol.command import ReceivedCommand, decode_command
from saga_engine.protocol.message import Message
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.topology import client_topology, participant_queue, participant_topology
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import (
    IncidentOpened,
    MessageDeadLettered,
    MessageIgnored,
    ProcessReady,
    RunFinished,
    Tell,
)
from saga_engine.vocabulary import Failure, Outcome
from saga_engine.worker.worker import Worker
from tests.broker.links import link_to, raw_channel
from tests.worker.parcels import COMMANDS, parcels

PATIENCE = 60
EAGER = {
    "poll": 0.02,
    "outbox_flush": 0.05,
    "broker_backoff": 0.01,
    "broker_backoff_max": 0.1,
    "drain": 5.0,
}


class Facts:
    """What a worker tells, and a way to wait for it."""

    def __init__(self):
        self.told = []
        self._news = asyncio.Event()

    def __call__(self, fact):
        self.told.append(fact)
        self._news.set()

    def of(self, kind, **fields):
        """What was told so far, of a kind, with these fields."""
        return [
            fact
            for fact in self.told
            if isinstance(fact, kind)
            and all(getattr(fact, name) == value for name, value in fields.items())
        ]

    async def until(self, kind, count=1, **fields):
        """The first `count` facts of a kind with these fields, told before or to come."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.of(kind, **fields)) < count:
                self._news.clear()
                await self._news.wait()
        return found[:count]

    async def finished(self, run_id):
        """How a run ends."""
        [fact] = await self.until(RunFinished, run_id=run_id)
        return fact.status

    async def incident(self, run_id, **fields):
        """The run needs a person."""
        [fact] = await self.until(IncidentOpened, run_id=run_id, **fields)
        return fact

    async def dead_letter(self, reason, **fields):
        """A message was set aside."""
        [fact] = await self.until(MessageDeadLettered, reason=reason, **fields)
        return fact

    async def ignored(self, reason, **fields):
        """A message changed nothing."""
        [fact] = await self.until(MessageIgnored, reason=reason, **fields)
        return fact


class Running:
    """A worker at work; `stop` drains it, `crash` ends it as SIGKILL would."""

    def __init__(self, group, worker, facts):
        self.worker, self.facts = worker, facts
        self._stop = asyncio.Event()
        self._task = group.create_task(worker.run(self._stop))

    async def stop(self):
        self._stop.set()
        await asyncio.wait([self._task])
        self._task.result()
        await self.worker.__aexit__(None, None, None)

    async def crash(self):
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.worker.__aexit__(None, None, None)


class Shop:
    """
    A participant in the test's hands.

    `answers[command]` makes the messages a command is answered with; by default it succeeds.
    """

    def __init__(self, publisher):
        self.answers: defaultdict[str, Callable[..., Any]] = defaultdict(lambda: succeed)
        self.received = []
        self._publisher = publisher
        self._news = asyncio.Event()

    @property
    def names(self):
        """The commands that came, in order."""
        return [each.command.name for each in self.received]

    async def until(self, name, count=1):
        """The first `count` commands of a name."""
        async with asyncio.timeout(PATIENCE):
            while self.names.count(name) < count:
                self._news.clear()
                await self._news.wait()
        return [each for each in self.received if each.command.name == name][:count]

    async def publish(self, *messages):
        """Send replies."""
        return await self._publisher.publish(messages)

    async def serve(self, consumer):
        while deliveries := await consumer.take(100):
            for delivery in deliveries:
                command = decode_command(delivery, Settings())
                assert isinstance(command, ReceivedCommand), command
                self.received.append(command)
                self._news.set()
                await self._publisher.publish(self.answers[command.command.name](command))
            await consumer.settle(deliveries)


def succeed(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {"did": command.command.name})]


def reject(command):
    return [encode_reply(command, Outcome.REJECTED, Failure("no", "Not today."))]


def fail(command):
    return [encode_reply(command, Outcome.FAILED, Failure("trouble", "It broke."))]


def forged(command):
    """Give a correlation id that looks like a command's and is no token of ours."""
    first, others = command.correlation_id[0], command.correlation_id[1:]
    return ("y" if first == "x" else "x") + others


def keep_silent(_command):
    return []


def reply_twice(command):
    return succeed(command) + succeed(command)


class Asker:
    """A client that sends requests as they are and hears every answer."""

    def __init__(self, publisher, queue):
        self.answers = {}
        self._publisher, self._queue = publisher, queue
        self._news = asyncio.Event()

    async def listen(self, consumer):
        while deliveries := await consumer.take(100):
            for delivery in deliveries:
                event = decode_event(delivery, Settings())
                self.answers.setdefault(delivery.correlation_id, []).append(event)
            self._news.set()
            await consumer.settle(deliveries)

    async def ask(self, verb, **body):
        """Send one request and wait for its answer."""
        [answer] = await self.ask_all((verb, body))
        return answer

    async def ask_all(self, *requests):
        """Send requests in one write and wait for their answers, in order."""
        return await self.hear(await self.send(*requests))

    async def send(self, *requests):
        """Send requests in one write; what to `hear` for."""
        messages = [self.request(verb, **body) for verb, body in requests]
        outcomes = await self._publisher.publish(messages)
        assert set(outcomes) == {"confirmed"}, outcomes
        return [message.correlation_id for message in messages]

    async def hear(self, correlation_ids):
        """Wait for the answers."""
        return [await self.answer(each) for each in correlation_ids]

    def request(self, verb, **body):
        return Message(
            *("saga.requests", verb, json.dumps(body).encode(), uuid4().hex, verb),
            correlation_id=uuid4().hex,
            reply_to=self._queue,
        )

    async def answer(self, correlation_id):
        async with asyncio.timeout(PATIENCE):
            while correlation_id not in self.answers:
                self._news.clear()
                await self._news.wait()
        return self.answers[correlation_id][0]

    async def start(self, saga="parcel", *, run_id=None, **body):
        """Start a run; its id."""
        run_id = run_id or str(uuid7())
        answer = await self.ask("start", run_id=run_id, saga=saga, **{"input": {}, **body})
        assert answer.outcome == "accepted", answer
        return run_id


class Engine:
    """Everything one test needs around its workers."""

    def __init__(self, owned, group, broker_url, database_url, settings):
        self._owned, self._group = owned, group
        self.broker_url, self.database_url = broker_url, database_url
        self.settings = settings
        self.database: Database

    async def worker(self, *sagas, broker_url=None, database_url=None, **changes):
        """Begin another worker; by default it knows parcels."""
        facts = Facts()
        settings = Settings(
            database_url=database_url or self.database_url,
            broker_url=broker_url or self.broker_url,
            **{**EAGER, **self.settings, **changes},
        )
        worker = Worker(sagas or [parcels()], settings, Tell(facts))
        running = Running(self._group, await self._owned.enter_async_context(worker), facts)
        self._owned.push_async_callback(running.crash)
        await facts.until(ProcessReady)
        return running

    async def shop(self, commands=COMMANDS, name="shop"):
        """Begin a participant."""
        topology = participant_topology(name, commands)
        shop = Shop(await self._publisher())
        consumer = await self._consumer(topology, participant_queue(name))
        self._serve(shop.serve(consumer))
        return shop

    async def asker(self):
        """Connect a client."""
        queue = f"saga.client.{uuid4().hex}"
        topology = client_topology(queue)
        asker = Asker(await self._publisher(), queue)
        self._serve(asker.listen(await self._consumer(topology, queue)))
        return asker

    async def raw(self, body, *, exchange="saga.replies", routing_key="saga.replies", **fields):
        """Send bytes with properties as another program might."""
        async with raw_channel(self.broker_url) as channel:
            properties = Basic.Properties(delivery_mode=2, **fields)
            await channel.basic_publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties
            )

    async def _publisher(self):
        return Publisher(await self._owned.enter_async_context(link_to(self.broker_url, "publish")))

    async def _consumer(self, topology, queue):
        link = await self._owned.enter_async_context(link_to(self.broker_url, topology=topology))
        return await self._owned.enter_async_context(Consumer(link, [queue]))

    def _serve(self, serving):
        task = self._group.create_task(serving)

        async def end():
            task.cancel()
            await asyncio.wait([task])

        self._owned.push_async_callback(end)


# A test may hold rows for longer than any worker may.
PATIENT = Settings(database_timeout=60.0)


@asynccontextmanager
async def engine_on(broker_url, database_url, **settings):
    """The surroundings of one test; everything in them ends with it."""
    async with asyncio.TaskGroup() as group, AsyncExitStack() as owned:
        engine = Engine(owned, group, broker_url, database_url, settings)
        engine.database = await owned.enter_async_context(Database(database_url, PATIENT))
        yield engine
