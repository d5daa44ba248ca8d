"""The engine's side of a test: sends commands over a broker and reads what is replied."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from saga_engine.amqp.connection import Link
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.participant.service import Service
from saga_engine.protocol.command import encode_command
from saga_engine.protocol.message import Published
from saga_engine.protocol.reply import decode_reply
from saga_engine.protocol.token import CommandRef, mint
from saga_engine.protocol.topology import ENGINE, REPLIES
from saga_engine.settings import Settings
from tests.participant.shop import Told

KEY = b"k" * 32
QUICK = {"broker_backoff": 0.01, "broker_backoff_max": 0.05}


class Engine:
    def __init__(self, publisher, consumer, settings):
        self._publisher = publisher
        self.consumer = consumer
        self._settings = settings

    async def send(self, command, **changes):
        """Publish a command, and be sure that its queue has it."""
        assert await self._publish(command, changes) is Published.CONFIRMED

    async def send_when_bound(self, command):
        """Publish a command until there is a queue for it: of that there is no signal."""
        async with asyncio.timeout(30):
            while await self._publish(command, {}) is not Published.CONFIRMED:
                pass

    async def _publish(self, command, changes):
        ref = CommandRef(command.run_id, command.step, command.direction, command.attempt)
        message = replace(encode_command(command, mint(KEY, ref)), **changes)
        (outcome,) = await self._publisher.publish([message])
        return outcome

    async def replies(self, count=1):
        """The next replies, read and acknowledged."""
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                deliveries = await self.consumer.take(count - len(found))
                await self.consumer.settle(deliveries)
                found += [decode_reply(each, [KEY], self._settings) for each in deliveries]
        return found

    async def reply(self):
        (reply,) = await self.replies(1)
        return reply


@asynccontextmanager
async def sender_on(url):
    """Something that sends commands, where no engine has ever been."""
    settings = Settings(**QUICK)
    async with Link(url, name="publish", settings=settings) as publish:
        yield Engine(Publisher(publish), None, settings)


@asynccontextmanager
async def engine_on(url):
    settings = Settings(**QUICK)
    async with (
        Link(url, name="publish", settings=settings, topology=ENGINE) as publish,
        Link(url, name="consume", settings=settings, topology=ENGINE) as consume,
        Consumer(consume, [REPLIES]) as consumer,
    ):
        yield Engine(Publisher(publish), consumer, settings)


class Running:
    """A service that runs; `told` are its facts."""

    def __init__(self, service, told, stop, task):
        self.service = service
        self.told = told
        self.stop = stop
        self.task = task

    async def drained(self):
        """Tell it to stop, and wait until it has."""
        self.stop.set()
        await self.task

    async def kill(self):
        """End it on the spot, as SIGKILL would: nothing is finished, nothing acknowledged."""
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def service_of(url, *shops, **changes):
    """The participants' process; ended on the spot when the block ends."""
    told, stop = Told(), asyncio.Event()
    settings = Settings(broker_url=url, **(QUICK | changes))
    participants = [shop.participant for shop in shops]
    async with (
        Service(participants, settings, told) as service,
        asyncio.TaskGroup() as group,
    ):
        running = Running(service, told, stop, group.create_task(service.run(stop)))
        yield running
        await running.kill()
