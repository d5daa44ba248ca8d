"""
The clients of a simulation: they ask until they see what they asked for.

They read the engine's tables to see it, where a real client would wait for an answer: answers are
best effort, and what counts here is the run.
"""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any, cast
from uuid import UUID

from saga_engine.errors import StoreRefused, StoreUnavailable
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.request import (
    CancelRequest,
    Request,
    StartRequest,
    StatusRequest,
    encode_request,
)
from saga_engine.saga.definition import Saga
from saga_engine.store import checked_requests
from saga_engine.store.checked_requests import StartWanted
from simulation.broker_model import Publisher
from simulation.memory_database import BEGINNING, Database, Tables
from simulation.partition_model import ID_AGE
from simulation.workload import Play

ASK_AGAIN = 5.0
"""Seconds after which a client that sees no run asks for it again."""

PATIENCE = 50
"""How often it does."""

CURIOUS, GLANCE = 0.5, 1.0
"""How many ask how a run stands that waits for its turn, and the seconds between, at the most."""

OF_A_SECOND = 2
"""Run ids that name the same second."""

NEWEST = 0.4
"""How many starts name no version."""

ASKING, KNOWN = "asking", "known"
"""Where answers go, and those that speak of a run which the engine had taken in before."""


class Client:
    """
    Starts runs, cancels some, and sends rubbish; it asks until it sees what it asked for.

    `accepted` are the runs of which the engine has said so, and the version it has named, if any;
    to those it records it adds. `made` is when its run ids are made, in seconds.
    """

    def __init__(
        self,
        engine: Tables,
        database: Database,
        publisher: Publisher,
        dice: Random,
        accepted: dict[str, int | None],
        made: float = 0.0,
    ) -> None:
        self._engine = engine
        self._accepted = accepted
        self._made = made
        self._database = database
        self._publisher = publisher
        self._dice = dice

    async def start(self, play: Play, number: int, *, within: float) -> None:
        """Start a run *within* that time, by a message or as a caller's own transaction does."""
        run_id, key = self.run_id(number), f"key-{number}" if self._dice.random() < 0.5 else None
        recorded, cancelled = self._dice.random() < 0.1, self._dice.random() < 0.15
        await asyncio.sleep(self._dice.random() * within)
        version = None if self._dice.random() < NEWEST else play.saga.version
        request = StartRequest(run_id, play.saga.name, play.input, version, key)
        for _ in range(PATIENCE):
            if self._is_there(str(run_id)):
                break
            if self._is_too_old(run_id):
                run_id = self.run_id(number, made=asyncio.get_running_loop().time())
                request = replace(request, run_id=run_id)
            await (self._record(request, play.saga) if recorded else self._send(request))
            await asyncio.sleep(ASK_AGAIN)
        if key is not None:
            await self._send(replace(request, run_id=self.run_id(number)))  # the same by its key
        if self._dice.random() < CURIOUS:
            await self._follow(run_id)
        if cancelled:
            await asyncio.sleep(self._dice.random() * 10)
            await self._send(CancelRequest(run_id, "the lot says so", "the client"), to=KNOWN)

    async def _follow(self, run_id: UUID) -> None:
        """Ask for a run that waits for its turn, again and again until it has begun."""
        for _ in range(PATIENCE):
            if str(run_id) in self._engine.rows["run"]:
                return
            await self._send(StatusRequest(run_id), to=KNOWN)
            await asyncio.sleep(self._dice.random() * GLANCE)

    def _is_there(self, run_id: str) -> bool:
        """Whether the engine has taken a run in: it has begun, or waits for its turn."""
        return run_id in self._engine.rows["run"] or run_id in self._accepted

    def _is_too_old(self, run_id: UUID) -> bool:
        """Whether a start with that id is refused, and none with it waits already."""
        now, made = asyncio.get_running_loop().time(), (run_id.int >> 80) / 1000
        waiting = (row["run_id"] for row in self._engine.rows["inbox"].values())
        age = BEGINNING.timestamp() + now - made
        return age > ID_AGE.total_seconds() and str(run_id) not in waiting

    async def throw_rubbish(self, exchange: str, *, within: float) -> None:
        """Send what nobody can read, until it is set aside."""
        await asyncio.sleep(self._dice.random() * within)
        message = rubbish(exchange)
        for _ in range(PATIENCE):
            if message.message_id in set_aside(self._engine):
                return
            await self._publisher.publish([message])
            await asyncio.sleep(ASK_AGAIN)

    async def _send(self, request: Request, *, to: str = ASKING) -> None:
        run_id, message_id = str(request.run_id), fresh_message_id()
        message = encode_request(request, reply_to=to, correlation_id=run_id, message_id=message_id)
        await self._publisher.publish([message])

    async def _record(self, request: StartRequest, saga: Saga) -> None:
        """Record a start as `start_in` does: by the saga's definition, or by its name alone."""
        run_id, by_name = str(request.run_id), request.version is None
        start = StartWanted(
            *(request.saga, request.version, run_id, request.key, request.input, request.input),
            known=by_name,
            fingerprint=None if by_name else saga.fingerprint,
        )
        try:
            async with self._database.transaction() as tx:
                started = await checked_requests.start(cast("Any", tx), start)
        except StoreUnavailable:
            return  # it is asked again
        except StoreRefused:
            self._accepted.setdefault(run_id, None)  # it waits: it was committed all the same
        else:
            if started is not None:
                self._accepted.setdefault(run_id, started.version)

    def run_id(self, number: int, made: float | None = None) -> UUID:
        """Make a UUIDv7 that is the same in every simulation of the seed, a few of each second."""
        made = self._made if made is None else made
        milliseconds = int((BEGINNING.timestamp() + made + number // OF_A_SECOND) * 1000) + number
        dice = self._dice.getrandbits(74)
        high = milliseconds << 16 | 0x7000 | dice >> 62
        return UUID(int=high << 64 | 0b10 << 62 | dice & 2**62 - 1)


def rubbish(exchange: str) -> Message:
    """Make what nobody can read."""
    return Message(exchange, exchange, b'{"rubb', f"rubbish for {exchange}")


def set_aside(engine: Tables) -> set[str]:
    """The messages that are among the dead letters."""
    return {row["message_id"] for row in engine.rows["dead_letter"].values()}
