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
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    MessageDeadLettered,
    MessagesConsumed,
)
from saga_engine.vocabulary import Direction, Status
from tests.hostile.raw_publisher import RawMessage, RawPublisher, raw_message
from tests.kit.amqp_properties import CORRELATION_ID, shortstr
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.participant_service import running_service
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_promises
from tests.kit.raw_amqp import RawAmqpClient

PARTICIPANT_QUEUE = "saga.participant.kit"
QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS, PARTICIPANT_QUEUE)
CONTROL_RUN_TIMEOUT_S = 60


def errand_saga():
    """One step, done by a participant of the kit."""
    saga = Saga("errand", version=1, input=dict[str, Any])

    @saga.step(command="errand.run", read_only=True)
    def run(errand: dict[str, Any]) -> dict[str, Any]:
        return errand

    return saga


class RecordingParticipant:
    """The participant of the kit; `received` are the payloads its handler was given."""

    def __init__(self):
        self.received: list[Any] = []
        self.participant = Participant("kit")

        @self.participant.command("errand.run")
        async def run(errand: Any) -> dict[str, str]:
            self.received.append(errand)
            return {"did": "it"}


class HostileHarness:
    def __init__(self, engine, worker, participant, sender):
        self.engine, self.worker, self.participant, self.sender = (
            engine,
            worker,
            participant,
            sender,
        )
        self.service: Any = None
        self._owned = AsyncExitStack()
        self.scripted_participant: Any = None
        self.client: Any = None
        self._reconnects_before = 0

    async def __aenter__(self):
        service = running_service(self.engine.broker_url, self.participant)
        self.service = await self._owned.enter_async_context(service)
        self.scripted_participant, self.client = await self.engine.shop(), await self.engine.asker()
        await self.run_control_runs()
        self._reconnects_before = self._reconnect_count()
        return self

    async def __aexit__(self, *error):
        await self._owned.aclose()

    async def run_control_runs(self):
        """A run of each kind beside the hostile ones; each ends within its time."""
        for saga in ("parcel", "errand"):
            async with asyncio.timeout(CONTROL_RUN_TIMEOUT_S):
                run_id = await self.client.start(saga)
                assert await self.worker.facts.finished(run_id) == Status.COMPLETED

    async def pending_reply_tokens(self, count):
        """The correlation ids of steps that wait for a reply."""
        self.scripted_participant.answers["parcel.send"] = no_reply
        before = self.scripted_participant.names.count("parcel.send")
        for _ in range(count):
            await self.client.start()
        commands = await self.scripted_participant.until("parcel.send", before + count)
        self.scripted_participant.answers["parcel.send"] = succeed
        return [each.correlation_id for each in commands[before:]]

    def make_reply(self, token, body):
        return RawMessage(
            REPLIES, REPLIES.encode(), body, {CORRELATION_ID: shortstr(token.encode())}
        )

    def make_command(self, body):
        """A command the kit's participant would perform, were its body or its headers sound."""
        run_id = uuid7()
        deadline = datetime(2099, 1, 1, tzinfo=UTC)
        command = Command(
            *(run_id, "errand", 1, "run", Direction.ACTION, 1, "errand.run", f"{run_id}/run"),
            *(body, deadline),
        )
        return raw_message(encode_command(command, f"no.token.of.{run_id}"))

    async def wait_for_dead_letters(self, queue, count):
        """Wait until so many from a queue are on record, end everything, and return all of them."""
        await self.worker.facts.until(MessageDeadLettered, count, queue=queue)
        await self.shut_down_and_check()
        async with self.engine.database.transaction() as tx:
            found = await dead_letters.read_page(tx, limit=10_000, queue=queue)
        return [each.message for each in found]

    async def shut_down_and_check(self):
        """Nothing lost its connection, nothing came twice, and nothing is left in any queue."""
        await self.run_control_runs()
        assert self._reconnect_count() == self._reconnects_before
        await self.service.drained()
        await self._owned.aclose()  # what it holds goes back to its queue
        await self.worker.stop()
        events = [*self.worker.facts.of(MessagesConsumed), *self.service.told.of(MessagesConsumed)]
        assert sum(fact.redelivered for fact in events) == 0
        for queue in QUEUES:
            await wait_until_true(lambda queue=queue: self._is_empty(queue))
        await check_promises(self.engine.database, settled=False)

    async def _is_empty(self, queue):
        return await self.sender.depth(queue) == 0

    def _reconnect_count(self):
        """How often a link had to connect again. A link that RabbitMQ blocks is not lost."""
        events = [
            *self.worker.facts.of(BrokerConnectionChanged),
            *self.service.told.of(BrokerConnectionChanged),
        ]
        return sum(fact.phase == "connecting" for fact in events)


@asynccontextmanager
async def hostile_harness(engine):
    """Everything begun, on the broker of an engine's surroundings."""
    worker = await engine.worker(parcels(), errand_saga(), maintenance=3600)
    async with RawAmqpClient.connect(engine.broker_url) as client:
        sender = RawPublisher(client)
        await sender.open_channel()
        async with HostileHarness(engine, worker, RecordingParticipant(), sender) as harness:
            yield harness


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()
