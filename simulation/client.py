"""
The clients of a simulation: they repeat a request until they see its effect.

A real client waits for an answer. These clients read the engine's tables, because answers are best
effort and the simulation checks the runs.
"""

import asyncio
from dataclasses import replace
from random import Random
from uuid import UUID

from saga_engine.errors import StoreRefused, StoreUnavailable
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.request import (
    CancelRequest,
    Request,
    StartRequest,
    StatusRequest,
    encode_request,
)
from saga_engine.saga.definition import Saga
from saga_engine.store.checked_requests import NewStart
from simulation.broker_model import PublisherModel
from simulation.memory_database import TIME_ZERO, MemoryDatabase
from simulation.memory_store import MemoryStore
from simulation.partition_model import MAX_RUN_ID_AGE
from simulation.workload import Workload

RETRY_INTERVAL_S = 5.0
"""Seconds after which a client repeats a request."""

MAX_TRIES = 50
"""The number of times that a client sends a request."""

POLLING_SHARE, MAX_POLL_INTERVAL_S = 0.5, 1.0
"""The share of clients that poll the status of a pending start, and the longest interval."""

RUN_IDS_PER_SECOND = 2
"""Run ids with the same second."""

UNVERSIONED_SHARE = 0.4
"""The share of starts without a version."""

REPLY_TO, KNOWN_REPLY_TO = "asking", "known"
"""The addresses of answers, in general and about runs that were accepted before."""


class Client:
    """
    Starts runs, cancels some of them, and sends malformed messages.

    Args:
        accepted_versions: the accepted runs with the version that the engine answered, if any; the
            client adds those that it recorded in a transaction.
        run_ids_made_at: the time of its run ids, in seconds of virtual time.
    """

    def __init__(
        self,
        engine_db: MemoryDatabase,
        store: MemoryStore,
        publisher: PublisherModel,
        rng: Random,
        accepted_versions: dict[str, int | None],
        run_ids_made_at: float = 0.0,
    ) -> None:
        self._engine_db = engine_db
        self._accepted_versions = accepted_versions
        self._run_ids_made_at = run_ids_made_at
        self._store = store
        self._publisher = publisher
        self._rng = rng

    async def start(self, workload: Workload, number: int, *, within: float) -> None:
        """Start a run at a random time, by a message or in a transaction of the caller."""
        run_id, key = (
            self.make_run_id(number),
            f"key-{number}" if self._rng.random() < 0.5 else None,
        )
        in_transaction, cancelled = self._rng.random() < 0.1, self._rng.random() < 0.15
        await asyncio.sleep(self._rng.random() * within)
        version = None if self._rng.random() < UNVERSIONED_SHARE else workload.saga.version
        request = StartRequest(
            run_id=run_id, saga=workload.saga.name, input=workload.input, version=version, key=key
        )
        for _ in range(MAX_TRIES):
            if self._is_accepted(str(run_id)):
                break
            if self._is_too_old(run_id):
                run_id = self.make_run_id(number, made_at=asyncio.get_running_loop().time())
                request = replace(request, run_id=run_id)
            await (
                self._start_in_transaction(request, workload.saga)
                if in_transaction
                else self._send(request)
            )
            await asyncio.sleep(RETRY_INTERVAL_S)
        if key is not None:
            await self._send(
                replace(request, run_id=self.make_run_id(number))
            )  # The engine finds the run by its key.
        if self._rng.random() < POLLING_SHARE:
            await self._poll_status(run_id)
        if cancelled:
            await asyncio.sleep(self._rng.random() * 10)
            await self._send(
                CancelRequest(run_id, "at random", "the client"), reply_to=KNOWN_REPLY_TO
            )

    async def _poll_status(self, run_id: UUID) -> None:
        """Poll the status of a run until it has started."""
        for _ in range(MAX_TRIES):
            if str(run_id) in self._engine_db.rows["run"]:
                return
            await self._send(StatusRequest(run_id), reply_to=KNOWN_REPLY_TO)
            await asyncio.sleep(self._rng.random() * MAX_POLL_INTERVAL_S)

    def _is_accepted(self, run_id: str) -> bool:
        """Whether a run has started, or its start was accepted."""
        return run_id in self._engine_db.rows["run"] or run_id in self._accepted_versions

    def _is_too_old(self, run_id: UUID) -> bool:
        """Whether a start with this id is refused for its age and is not pending."""
        now, made_at = asyncio.get_running_loop().time(), (run_id.int >> 80) / 1000
        waiting = (row["run_id"] for row in self._engine_db.rows["pending_request"].values())
        age = TIME_ZERO.timestamp() + now - made_at
        return age > MAX_RUN_ID_AGE.total_seconds() and str(run_id) not in waiting

    async def send_malformed(self, exchange: str, *, within: float) -> None:
        """Send a malformed message until it is dead-lettered."""
        await asyncio.sleep(self._rng.random() * within)
        message = malformed_message(exchange)
        for _ in range(MAX_TRIES):
            if message.message_id in dead_lettered_ids(self._engine_db):
                return
            await self._publisher.publish([message])
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _send(self, request: Request, *, reply_to: str = REPLY_TO) -> None:
        run_id, message_id = str(request.run_id), new_message_id()
        message = encode_request(
            request, reply_to=reply_to, correlation_id=run_id, message_id=message_id
        )
        await self._publisher.publish([message])

    async def _start_in_transaction(self, request: StartRequest, saga: Saga) -> None:
        """Record a start as `start_in_transaction` does: with the definition, or with its name."""
        run_id, by_name = str(request.run_id), request.version is None
        start = NewStart(
            saga=request.saga,
            version=request.version,
            run_id=run_id,
            key=request.key,
            encrypted_input=request.input,
            plain_input=request.input,
            must_be_known=by_name,
            fingerprint=None if by_name else saga.fingerprint,
        )
        try:
            async with self._store.transaction() as tx:
                started = await tx.record_start(start)
        except StoreUnavailable:
            return  # The client repeats it.
        except StoreRefused:
            self._accepted_versions.setdefault(
                run_id, None
            )  # It is pending: an earlier attempt was committed.
        else:
            if started is not None:
                self._accepted_versions.setdefault(run_id, started.version)

    def make_run_id(self, number: int, made_at: float | None = None) -> UUID:
        """Make a UUIDv7 that depends only on the seed; several ids have the same second."""
        made_at = self._run_ids_made_at if made_at is None else made_at
        milliseconds = (
            int((TIME_ZERO.timestamp() + made_at + number // RUN_IDS_PER_SECOND) * 1000) + number
        )
        random_bits = self._rng.getrandbits(74)
        high = milliseconds << 16 | 0x7000 | random_bits >> 62
        return UUID(int=high << 64 | 0b10 << 62 | random_bits & 2**62 - 1)


def malformed_message(exchange: str) -> Message:
    """A message that cannot be decoded."""
    return Message(
        exchange=exchange,
        routing_key=exchange,
        body=b'{"rubb',
        message_id=f"rubbish for {exchange}",
    )


def dead_lettered_ids(engine_db: MemoryDatabase) -> set[str]:
    """The message ids of the dead letters."""
    return {row["message_id"] for row in engine_db.rows["dead_letter"].values()}
