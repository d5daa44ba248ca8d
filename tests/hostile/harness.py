"""
Runs hostile messages through a real broker, a worker and a participant.

Control runs are completed between the hostile messages. `shut_down_and_check` stops everything and
checks that no connection was lost, no message was redelivered and no queue holds a message.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from saga_engine.identifiers import uuid7
from saga_engine.participant import Participant
from saga_engine.protocol.command import encode_command
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.saga.definition import Saga
from saga_engine.store import dead_letter_queries
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetterState
from saga_engine.telemetry.events import (
    BrokerConnectionChanged,
    MessageDeadLettered,
    MessagesConsumed,
)
from saga_engine.vocabulary import Command, Direction, Status
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


def job_saga():
    """One step, whose command a participant of the kit handles."""
    saga = Saga("job", version=1, input=dict[str, Any])

    @saga.step(command="job.run", read_only=True)
    def run(job: dict[str, Any]) -> dict[str, Any]:
        return job

    return saga


class RecordingParticipant:
    """A participant of the kit; `received` has the payloads that its handler received."""

    def __init__(self):
        self.received: list[Any] = []
        self.participant = Participant("kit")

        @self.participant.command("job.run")
        async def run(job: Any) -> dict[str, str]:
            self.received.append(job)
            return {"did": "it"}


class HostileHarness:
    """
    A worker, a participant of the kit, a scripted participant and a client on one broker.

    `publisher` sends raw messages, `service` is the process of the kit's participant.
    """

    def __init__(self, engine, worker, participant, publisher):
        self.engine = engine
        self.worker = worker
        self.participant = participant
        self.publisher = publisher
        self.service: Any = None
        self._owned = AsyncExitStack()
        self._scripted_participant: Any = None
        self._client: Any = None
        self._initial_connections = 0

    async def __aenter__(self):
        service = running_service(self.engine.broker_url, self.participant)
        self.service = await self._owned.enter_async_context(service)
        self._scripted_participant = await self.engine.start_participant()
        self._client = await self.engine.connect_client()
        await self.complete_control_runs()
        self._initial_connections = self._connection_count()
        return self

    async def __aexit__(self, *error):
        await self._owned.aclose()

    async def complete_control_runs(self):
        """Complete one run of each saga within the time limit."""
        for saga in ("parcel", "job"):
            async with asyncio.timeout(CONTROL_RUN_TIMEOUT_S):
                run_id = await self._client.start(saga)
                assert await self.worker.events.wait_for_end(run_id) == Status.COMPLETED

    async def pending_reply_tokens(self, count):
        """Start runs that wait for a reply; return the correlation ids of their commands."""
        participant = self._scripted_participant
        participant.reply_makers["parcel.send"] = no_reply
        before = participant.command_names.count("parcel.send")
        for _ in range(count):
            await self._client.start()
        commands = await participant.wait_for_commands("parcel.send", before + count)
        participant.reply_makers["parcel.send"] = succeed
        return [each.correlation_id for each in commands[before:]]

    def make_reply(self, token, body):
        return RawMessage(
            REPLIES, REPLIES.encode(), body, {CORRELATION_ID: shortstr(token.encode())}
        )

    def make_command(self, payload):
        """A valid command that the kit's participant handles."""
        run_id = uuid7()
        command = Command(
            run_id=str(run_id),
            saga="job",
            version=1,
            step="run",
            direction=Direction.ACTION,
            attempt=1,
            name="job.run",
            idempotency_key=f"{run_id}/run",
            payload=payload,
            deadline=datetime(2099, 1, 1, tzinfo=UTC),
        )
        return raw_message(encode_command(command, f"no.token.of.{run_id}"))

    async def wait_for_dead_letters(self, queue, count):
        """Wait for `count` dead letters of a queue, shut down, and return all of them."""
        await self.worker.events.wait_for(MessageDeadLettered, count, queue=queue)
        await self.shut_down_and_check()
        async with self.engine.database.transaction() as tx:
            found = await dead_letter_queries.read_page(
                tx,
                DeadLetterFilter(state=DeadLetterState.OPEN, queue=queue),
                limit=10_000,
            )
        return [each.message for each in found]

    async def shut_down_and_check(self):
        """Check that nothing was disconnected or redelivered and that every queue is empty."""
        await self.complete_control_runs()
        assert self._connection_count() == self._initial_connections
        await self.service.shut_down()
        await self._owned.aclose()  # Messages that it has not acknowledged are requeued.
        await self.worker.stop()
        assert sum(event.redelivered for event in self._events(MessagesConsumed)) == 0
        for queue in QUEUES:
            await wait_until_true(lambda queue=queue: self._is_empty(queue))
        await check_promises(self.engine.database, settled=False)

    async def _is_empty(self, queue):
        return await self.publisher.depth(queue) == 0

    def _connection_count(self):
        """How often a connection was opened. A connection that RabbitMQ blocks is not lost."""
        return sum(event.state == "connecting" for event in self._events(BrokerConnectionChanged))

    def _events(self, kind):
        return [*self.worker.events.matching(kind), *self.service.events.matching(kind)]


@asynccontextmanager
async def hostile_harness(engine):
    """A harness on the broker and the database of an engine harness."""
    worker = await engine.start_worker(parcels(), job_saga(), maintenance_interval=3600)
    async with RawAmqpClient.connect(engine.broker_url) as client:
        publisher = RawPublisher(client)
        await publisher.open_channel()
        async with HostileHarness(engine, worker, RecordingParticipant(), publisher) as harness:
            yield harness


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()
