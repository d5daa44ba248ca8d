"""A participant with a ledger, and commands as an engine sends them."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from saga_engine.participant import CommandContext, Failed, Participant, Rejected
from saga_engine.participant.barrier import InHand
from saga_engine.participant.database import Database
from saga_engine.participant.executor import Performer
from saga_engine.protocol.command import Command, ReceivedCommand
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Outcome

FAR = datetime(2099, 1, 1, tzinfo=UTC)


class ChargeCard(BaseModel):
    order_id: str
    card: str = "ok"


class Charge(BaseModel):
    charge_id: str


class RefundCard(BaseModel):
    order_id: str


REFUSALS = {
    "declined": Rejected("declined", "The card was declined.", {"card": "visa"}),
    "broken": OSError("secret-password in /etc/shadow"),
    "unsure": Failed("gateway", "The gateway is away."),
}


class Shop:
    """
    The payments participant; `called` counts its handlers' calls.

    `card` decides, after writing: one of REFUSALS, slow (sets `entered` and waits for `released`),
    declined once (likewise, and the first call is declined), committing, cancelling.
    """

    def __init__(self, database=None):
        self.called = []
        self.contexts = []
        self.entered = asyncio.Event()
        self.released = asyncio.Event()
        self.declining = True
        self.participant = Participant("payments", database=database)
        self.participant.command("payment.charge")(self._charge(database))
        self.participant.compensation("payment.refund", of="payment.charge")(self._refund(database))

    def _charge(self, database):
        async def perform(command: ChargeCard, tx: AsyncConnection | None) -> Charge:
            self.called.append("charge")
            if tx is not None:
                await tx.execute(
                    text("INSERT INTO ledger VALUES (:order, 1)"), {"order": command.order_id}
                )
            await self._mood(command.card, tx)
            return Charge(charge_id=f"{command.order_id}-{len(self.called)}")

        async def with_database(
            command: ChargeCard, tx: AsyncConnection, context: CommandContext
        ) -> Charge:
            self.contexts.append(context)
            return await perform(command, tx)

        async def without_database(command: ChargeCard, context: CommandContext) -> Charge:
            self.contexts.append(context)
            return await perform(command, None)

        return with_database if database else without_database

    async def _mood(self, card, tx):
        if self.declining and card in REFUSALS:
            raise REFUSALS[card]
        if card in ("slow", "declined once"):
            self.entered.set()
            await self.released.wait()
        if card == "declined once" and len(self.called) == 1:
            raise REFUSALS["declined"]
        if card == "committing":
            await tx.commit()
        if card == "cancelling":
            raise asyncio.CancelledError

    def _refund(self, database):
        async def perform(command: RefundCard, tx: AsyncConnection | None) -> None:
            self.called.append("refund")
            if command.order_id == "never" and self.declining:
                raise Rejected("never", "Refunds are closed.")
            if tx is not None:
                await tx.execute(
                    text("INSERT INTO ledger VALUES (:order, -1)"), {"order": command.order_id}
                )

        async def with_database(command: RefundCard, tx: AsyncConnection) -> None:
            await perform(command, tx)

        async def without_database(command: RefundCard) -> None:
            await perform(command, None)

        return with_database if database else without_database


@asynccontextmanager
async def ledger_in(url):
    """The user's engine, on a database with their table."""
    engine = create_async_engine(url, pool_size=25)
    try:
        async with engine.begin() as tx:
            await tx.execute(text("CREATE TABLE IF NOT EXISTS ledger (order_id text, amount int)"))
        yield engine
    finally:
        await engine.dispose()


async def entries(engine):
    """What the ledger says: the independent witness of every effect."""
    async with engine.connect() as tx:
        return [tuple(row) for row in await tx.execute(text("SELECT * FROM ledger ORDER BY 1, 2"))]


class Told(list):
    """The facts that were told, and a way to wait for one."""

    def __init__(self):
        super().__init__()
        self._told = asyncio.Event()

    def __call__(self, fact):
        self.append(fact)
        self._told.set()

    def of(self, kind):
        return [fact for fact in self if isinstance(fact, kind)]

    async def until(self, condition: Callable[[object], bool]):
        async with asyncio.timeout(30):
            while True:
                found = next((fact for fact in self if condition(fact)), None)
                if found is not None:
                    return found
                self._told.clear()
                await self._told.wait()


def command(
    run_id: UUID | None = None,
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
        run_id=run_id,
        saga="place-order",
        version=1,
        step="charge",
        direction=direction,
        attempt=attempt,
        name=name,
        idempotency_key=f"{run_id}/charge/{direction}/{round}",
        payload=body,
        deadline=FAR,
    )


def refund_of(
    charge: Command,
    *,
    attempt=1,
    round=1,  # noqa: A002 - as above
    order="o-1",
):
    refund = command(
        charge.run_id,
        {"order_id": order},
        name="payment.refund",
        direction=Direction.COMPENSATION,
        attempt=attempt,
        round=round,
    )
    return replace(refund, deadline=charge.deadline)


class Desk:
    """Performs commands of a Shop without a broker."""

    def __init__(self, shop, database, told, **changes):
        self.told = told
        self.waiting = asyncio.Event()  # set when a command has met one that is in hand
        self._ends = asyncio.Condition()
        self._performing = self._answered = 0
        self._performer = Performer(shop.participant.handlers, database, Settings(**changes), told)

    async def __call__(self, asked: Command):
        """The outcome and the body of the reply."""
        answer = await self.perform(asked)
        return answer.outcome, orjson.loads(answer.body)

    async def perform(self, asked: Command):
        """The answer, with its body as it is sent."""
        received = ReceivedCommand(asked, "token", "saga.replies", "message", "")
        while True:
            before = self._answered
            try:
                return await self._performed(received)
            except InHand:
                self.waiting.set()
            async with self._ends:  # Coming again at once would keep all of them from being done.
                while self._performing and self._answered == before:
                    await self._ends.wait()

    async def _performed(self, received):
        self._performing += 1
        try:
            answer = await self._performer.perform(received)
            self._answered += 1
            return answer
        finally:
            self._performing -= 1
            async with self._ends:
                self._ends.notify_all()


@asynccontextmanager
async def desk_of(engine, **changes):
    """A shop on the user's engine, with its barrier, and its desk."""
    shop = Shop(engine)
    database = Database(engine, Settings())
    await database.prepare(create_barrier=True)
    yield shop, Desk(shop, database, Told(), **changes)
    await database.close()


DONE = Outcome.SUCCEEDED
