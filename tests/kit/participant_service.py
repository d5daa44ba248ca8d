"""The engine's side of a test: sends commands over a broker and reads what is replied."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.participant.service import ParticipantService
from saga_engine.protocol.command import encode_command
from saga_engine.protocol.message import PublishOutcome
from saga_engine.protocol.reply import decode_reply
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REPLIES
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole
from tests.kit.connections import FAST_RECONNECT
from tests.kit.events import EventRecorder

TOKEN_KEY = b"k" * 32


class EngineStub:
    def __init__(self, publisher, consumer, settings):
        self._publisher = publisher
        self.consumer = consumer
        self._settings = settings

    async def send(self, command, **changes):
        """Publish a command, and be sure that its queue has it."""
        assert await self._publish(command, changes) is PublishOutcome.CONFIRMED

    async def send_when_bound(self, command):
        """Publish a command until there is a queue for it: of that there is no signal."""
        async with asyncio.timeout(30):
            while await self._publish(command, {}) is not PublishOutcome.CONFIRMED:
                pass

    async def _publish(self, command, changes):
        ref = CommandRef(command.run_id, command.step, command.direction, command.attempt)
        message = replace(encode_command(command, sign_token(TOKEN_KEY, ref)), **changes)
        (outcome,) = await self._publisher.publish([message])
        return outcome

    async def take_replies(self, count=1):
        """The next replies, read and acknowledged."""
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                deliveries = await self.consumer.take(count - len(found))
                await self.consumer.acknowledge(deliveries)
                found += [decode_reply(each, [TOKEN_KEY], self._settings) for each in deliveries]
        return found

    async def take_reply(self):
        (reply,) = await self.take_replies(1)
        return reply


@asynccontextmanager
async def command_sender(url):
    """Something that sends commands, where no engine has ever been."""
    settings = Settings(**FAST_RECONNECT)
    async with SupervisedConnection(url, role=ConnectionRole.PUBLISH, settings=settings) as publish:
        yield EngineStub(Publisher(publish), None, settings)


@asynccontextmanager
async def engine_stub(url):
    settings = Settings(**FAST_RECONNECT)
    async with (
        SupervisedConnection(
            url, role=ConnectionRole.PUBLISH, settings=settings, topology=ENGINE_TOPOLOGY
        ) as publish,
        SupervisedConnection(
            url, role=ConnectionRole.CONSUME, settings=settings, topology=ENGINE_TOPOLOGY
        ) as consume,
        Consumer(consume, [REPLIES]) as consumer,
    ):
        yield EngineStub(Publisher(publish), consumer, settings)


def is_reply(message):
    """Whether a message that the broker gets is a reply: for its faults."""
    return message.exchange == REPLIES


class RunningService:
    """A running service; `events` are its telemetry."""

    def __init__(self, service, events, stop, task):
        self.service = service
        self.events = events
        self.stop = stop
        self.task = task

    async def shut_down(self):
        """Stop it, and wait until it has ended."""
        self.stop.set()
        await self.task

    async def kill(self):
        """End it on the spot, as SIGKILL would: nothing is finished, nothing acknowledged."""
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def running_service(url, *payments, **changes):
    """The participants' process; ended on the spot when the block ends."""
    events, stop = EventRecorder(), asyncio.Event()
    settings = Settings(broker_url=url, **(FAST_RECONNECT | changes))
    participants = [shop.participant for shop in payments]
    async with (
        ParticipantService(participants, settings, events) as service,
        asyncio.TaskGroup() as group,
    ):
        running = RunningService(service, events, stop, group.create_task(service.run(stop)))
        yield running
        await running.kill()
