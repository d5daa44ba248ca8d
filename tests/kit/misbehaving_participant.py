"""Participants whose handlers exit, raise anything, or ignore their cancellation."""

import asyncio

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant import Participant


class HandlerChoice(BaseModel):
    """A payload whose `card` chooses what the handler does."""

    order_id: str
    card: str = ""


class MisbehavingParticipant:
    """A participant with the given handler."""

    def __init__(self, handler, database=None):
        self.participant = Participant("payments", database=database)
        self.participant.command("payment.charge")(handler)


async def turn_of_the_loop():
    """Wait for one iteration of the event loop."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


class UncancellableParticipant(MisbehavingParticipant):
    """Its handler ignores every cancellation until it `may_finish` is set."""

    def __init__(self, database=None):
        self.may_finish = asyncio.Event()
        super().__init__(self._with(database), database)

    def _with(self, database):
        async def hold(asked):
            while asked.card == "hold" and not self.may_finish.is_set():
                try:
                    await self.may_finish.wait()
                except asyncio.CancelledError:
                    continue

        async def alone(asked: HandlerChoice) -> None:
            await hold(asked)

        async def with_database(asked: HandlerChoice, tx: AsyncConnection) -> None:
            await tx.execute(text("INSERT INTO bookings VALUES (:order, 1)"), {"order": "o-1"})
            await hold(asked)
            await tx.execute(text("INSERT INTO bookings VALUES (:order, 2)"), {"order": "o-1"})

        return with_database if database is not None else alone


HOLD = {"order_id": "o-1", "card": "hold"}
"""The payload of a command whose handler ignores its cancellation."""

SHORT = {"participant_handler_timeout": 0.5, "participant_cancel_timeout": 0.1}
"""Settings with which a participant soon abandons such a handler."""
