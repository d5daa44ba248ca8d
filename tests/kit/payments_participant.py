"""A participant with a table of bookings, and commands as an engine sends them."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from saga_engine.participant import CommandContext, Failed, Participant, Rejected
from saga_engine.participant.barrier import CommandInProgress
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.executor import Executor
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, Direction, Outcome
from tests.kit.events import EventRecorder

FAR_FUTURE = datetime(2099, 1, 1, tzinfo=UTC)


class ChargeCard(BaseModel):
    order_id: str
    card: str = "ok"


class Charge(BaseModel):
    charge_id: str


class RefundCard(BaseModel):
    order_id: str


FAILURES = {
    "declined": Rejected("declined", "The card was declined.", {"card": "visa"}),
    "broken": OSError("secret-password in /etc/shadow"),
    "unsure": Failed("gateway", "The gateway is unavailable."),
}


class PaymentsParticipant:
    """
    The payments participant; `calls` are the calls of its handlers.

    `card` decides, after writing: one of FAILURES, slow (sets `entered`, waits for `may_finish`),
    declined once (likewise, and the first call is declined), committing, cancelling.
    """

    def __init__(self, database=None, **options):
        self.calls = []
        self.contexts = []
        self.entered = asyncio.Event()
        self.may_finish = asyncio.Event()
        self.rejects = True
        self.participant = Participant("payments", database=database, **options)
        self.participant.command("payment.charge")(self._charge(database))
        self.participant.compensation("payment.refund", of="payment.charge")(self._refund(database))

    def _charge(self, database):
        async def perform(command: ChargeCard, tx: AsyncConnection | None) -> Charge:
            self.calls.append("charge")
            if tx is not None:
                await tx.execute(
                    text("INSERT INTO bookings VALUES (:order, 1)"), {"order": command.order_id}
                )
            await self._apply_scenario(command.card, tx)
            return Charge(charge_id=f"{command.order_id}-{len(self.calls)}")

        async def with_database(
            command: ChargeCard, tx: AsyncConnection, context: CommandContext
        ) -> Charge:
            self.contexts.append(context)
            return await perform(command, tx)

        async def without_database(command: ChargeCard, context: CommandContext) -> Charge:
            self.contexts.append(context)
            return await perform(command, None)

        return with_database if database else without_database

    async def _apply_scenario(self, card, tx):
        if self.rejects and card in FAILURES:
            raise FAILURES[card]
        if card in ("slow", "declined once"):
            self.entered.set()
            await self.may_finish.wait()
        if card == "declined once" and len(self.calls) == 1:
            raise FAILURES["declined"]
        if card == "committing":
            await tx.commit()
        if card == "cancelling":
            raise asyncio.CancelledError

    def _refund(self, database):
        async def perform(command: RefundCard, tx: AsyncConnection | None) -> None:
            self.calls.append("refund")
            if command.order_id == "never" and self.rejects:
                raise Rejected("never", "Refunds are closed.")
            if tx is not None:
                await tx.execute(
                    text("INSERT INTO bookings VALUES (:order, -1)"), {"order": command.order_id}
                )

        async def with_database(command: RefundCard, tx: AsyncConnection) -> None:
            await perform(command, tx)

        async def without_database(command: RefundCard) -> None:
            await perform(command, None)

        return with_database if database else without_database


@asynccontextmanager
async def bookings_engine(url):
    """The user's engine, on a database with their table."""
    engine = create_async_engine(url, pool_size=25)
    try:
        async with engine.begin() as tx:
            await tx.execute(
                text("CREATE TABLE IF NOT EXISTS bookings (order_id text, amount int)")
            )
        yield engine
    finally:
        await engine.dispose()


async def booking_rows(engine):
    """The rows of the table: an independent record of every effect."""
    async with engine.connect() as tx:
        return [
            tuple(row) for row in await tx.execute(text("SELECT * FROM bookings ORDER BY 1, 2"))
        ]


def make_command(
    run_id: UUID | str | None = None,
    payload=None,
    *,
    name="payment.charge",
    direction=Direction.ACTION,
    attempt=1,
    round=1,  # noqa: A002 - the word of the core
):
    """A command of step `charge`, decoded."""
    run_id = run_id or uuid4()
    body = {"order_id": "o-1"} if payload is None else payload
    return Command(
        run_id=str(run_id),
        saga="place-order",
        version=1,
        step="charge",
        direction=direction,
        attempt=attempt,
        name=name,
        idempotency_key=f"{run_id}/charge/{direction}/{round}",
        payload=body,
        deadline=FAR_FUTURE,
    )


def make_refund(
    charge: Command,
    *,
    attempt=1,
    round=1,  # noqa: A002 - as above
    order="o-1",
):
    refund = make_command(
        charge.run_id,
        {"order_id": order},
        name="payment.refund",
        direction=Direction.COMPENSATION,
        attempt=attempt,
        round=round,
    )
    return replace(refund, deadline=charge.deadline)


class DirectExecutor:
    """Executes commands of a PaymentsParticipant without a broker."""

    def __init__(self, payments, database, events, **changes):
        self.events = events
        self.saw_in_progress = asyncio.Event()  # set when a command was already in progress
        self._finished = asyncio.Condition()
        self._running = self._answered_count = 0
        self._executor = Executor(
            payments.participant.handlers, database, Settings(**changes), events
        )

    async def __call__(self, sent: Command):
        """The outcome and the body of the reply."""
        answer = await self.execute(sent)
        return answer.outcome, orjson.loads(answer.body)

    async def execute(self, sent: Command):
        """The answer, with its body as it is sent."""
        received = ReceivedCommand(
            command=sent,
            correlation_id="token",
            reply_to="saga.replies",
            message_id="message",
            traceparent="",
        )
        while True:
            before = self._answered_count
            try:
                return await self._execute_once(received)
            except CommandInProgress:
                self.saw_in_progress.set()
            async with (
                self._finished
            ):  # Coming again at once would keep all of them from being done.
                while self._running and self._answered_count == before:
                    await self._finished.wait()

    async def _execute_once(self, received):
        self._running += 1
        try:
            answer = await self._executor.execute(received)
            self._answered_count += 1
            return answer
        finally:
            self._running -= 1
            async with self._finished:
                self._finished.notify_all()


@asynccontextmanager
async def direct_executor(engine, **changes):
    """A participant on the user's engine, with its barrier, and its executor."""
    payments = PaymentsParticipant(engine)
    database = ParticipantDatabase(engine, Settings())
    await database.prepare(create_barrier=True)
    yield payments, DirectExecutor(payments, database, EventRecorder(), **changes)
    await database.close()


SUCCEEDED = Outcome.SUCCEEDED
