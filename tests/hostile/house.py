"""
A worker, a participant of the kit and good neighbours, for messages that mean no good.

Every hostile message goes between good ones through a real broker; `end` stops everything and looks
whether anything is left that would be delivered again.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from saga_engine.identifiers import uuid7
from saga_engine.participant import Participant
from saga_engine.protocol.command import Command, encode_command
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.saga.definition import Saga
from saga_engine.store import dead_letters
from saga_engine.telemetry.events import LinkChanged, MessageDeadLettered, MessagesConsumed
from saga_engine.vocabulary import Direction, Status
from tests.embedded.raw import RawClient
from tests.faults.processes import eventually
from tests.hostile.properties import CORRELATION_ID, shortstr
from tests.hostile.sending import Letter, Sender, of_message
from tests.participant.engine import service_of
from tests.worker.engine import keep_silent, succeed
from tests.worker.parcels import parcels
from tests.worker.promises import check_promises

KIT = "saga.participant.kit"
QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS, KIT)
NEIGHBOUR_SECONDS = 60


def errands():
    """One step, done by a participant of the kit."""
    saga = Saga("errand", version=1, input=dict[str, Any])

    @saga.step(command="errand.run", read_only=True)
    def run(errand: dict[str, Any]) -> dict[str, Any]:
        return errand

    return saga


class Kit:
    """The participant of the kit; `received` are the payloads its handler was given."""

    def __init__(self):
        self.received: list[Any] = []
        self.participant = Participant("kit")

        @self.participant.command("errand.run")
        async def run(errand: Any) -> dict[str, str]:
            self.received.append(errand)
            return {"did": "it"}


class House:
    def __init__(self, engine, worker, kit, sender):
        self.engine, self.worker, self.kit, self.sender = engine, worker, kit, sender
        self.service: Any = None
        self._owned = AsyncExitStack()
        self.shop: Any = None
        self.asker: Any = None
        self._lost_before = 0

    async def __aenter__(self):
        service = service_of(self.engine.broker_url, self.kit)
        self.service = await self._owned.enter_async_context(service)
        self.shop, self.asker = await self.engine.shop(), await self.engine.asker()
        await self.neighbours()
        self._lost_before = self._lost_links()
        return self

    async def __aexit__(self, *error):
        await self._owned.aclose()

    async def neighbours(self):
        """A run of each kind beside the hostile ones; each ends within its time."""
        for saga in ("parcel", "errand"):
            async with asyncio.timeout(NEIGHBOUR_SECONDS):
                run_id = await self.asker.start(saga)
                assert await self.worker.facts.finished(run_id) == Status.COMPLETED

    async def tokens(self, count):
        """The correlation ids of steps that wait for a reply."""
        self.shop.answers["parcel.send"] = keep_silent
        before = self.shop.names.count("parcel.send")
        for _ in range(count):
            await self.asker.start()
        commands = await self.shop.until("parcel.send", before + count)
        self.shop.answers["parcel.send"] = succeed
        return [each.correlation_id for each in commands[before:]]

    def reply(self, token, body):
        return Letter(REPLIES, REPLIES.encode(), body, {CORRELATION_ID: shortstr(token.encode())})

    def command(self, body):
        """A command the kit's participant would perform, were its body or its headers sound."""
        run_id = uuid7()
        deadline = datetime(2099, 1, 1, tzinfo=UTC)
        command = Command(
            *(run_id, "errand", 1, "run", Direction.ACTION, 1, "errand.run", f"{run_id}/run"),
            *(body, deadline),
        )
        return of_message(encode_command(command, f"no.token.of.{run_id}"))

    async def settled(self, queue, count):
        """Wait until so many from a queue are on record, end everything, and return all of them."""
        await self.worker.facts.until(MessageDeadLettered, count, queue=queue)
        await self.end()
        async with self.engine.database.transaction() as tx:
            found = await dead_letters.listing(tx, limit=10_000, queue=queue)
        return [each.letter for each in found]

    async def end(self):
        """Nothing lost its connection, nothing came twice, and nothing is left in any queue."""
        await self.neighbours()
        assert self._lost_links() == self._lost_before
        await self.service.drained()
        await self._owned.aclose()  # what it holds goes back to its queue
        await self.worker.stop()
        told = [*self.worker.facts.of(MessagesConsumed), *self.service.told.of(MessagesConsumed)]
        assert sum(fact.redelivered for fact in told) == 0
        for queue in QUEUES:
            await eventually(lambda queue=queue: self._is_empty(queue))
        await check_promises(self.engine.database, settled=False)

    async def _is_empty(self, queue):
        return await self.sender.depth(queue) == 0

    def _lost_links(self):
        """How often a link had to connect again. A link that RabbitMQ blocks is not lost."""
        told = [*self.worker.facts.of(LinkChanged), *self.service.told.of(LinkChanged)]
        return sum(fact.phase == "connecting" for fact in told)


@asynccontextmanager
async def house_on(engine):
    """Everything begun, on the broker of an engine's surroundings."""
    worker = await engine.worker(parcels(), errands(), maintenance=3600)
    async with RawClient.connect(engine.broker_url) as client:
        sender = Sender(client)
        await sender.begin()
        async with House(engine, worker, Kit(), sender) as house:
            yield house


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()
