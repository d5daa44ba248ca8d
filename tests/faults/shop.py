"""
What the fault suite runs: two sagas, the services they ask, and the ledger those write.

    saga-engine worker tests.faults.shop:orders tests.faults.shop:journeys
    saga-engine participant tests.faults.shop

`order` is a row of three steps; `journey` books three things side by side, pays (the point of no
return) and prints a ticket. An errand's whim says what its services do. The ledger is theirs, in a
database of their own, and knows nothing of the engine: one row for each effect.
"""

import os
import random
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine import CommandContext, Participant, Rejected, Retry, Saga
from tests.faults.processes import lasting

DATABASE = "SHOP_DATABASE_URL"

TIMEOUT = timedelta(seconds=3)
SLOW_S = 3.6
WORK_S = (0.02, 0.25)
"""Seconds that a command takes, at the least and at the most: whatever breaks then is in use."""

LONG = timedelta(seconds=15)
"""Longer than `outbox_age`, so that the sweep finds commands somebody still waits for."""

PATIENT = Retry(attempts=60, initial=timedelta(milliseconds=200), maximum=timedelta(seconds=2))
"""After the point of no return, and for undoing: longer than any fault of the suite."""

TRY = Retry(attempts=20, initial=timedelta(milliseconds=100), maximum=timedelta(seconds=1))
"""Pauses of 13 s at the least: a watchdog takes 4 to restore a binding somebody deleted."""

MAKE_LEDGER = """
    CREATE TABLE ledger (id bigserial PRIMARY KEY, errand text NOT NULL, step text NOT NULL,
        direction text NOT NULL, attempt integer NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp())"""


class Errand(BaseModel):
    """
    The input of both sagas, and the payload of every command.

    Whims: `fine`; `refused:STEP` is rejected there; `flaky:STEP` fails twice there; `slow:STEP`
    takes longer than its timeout at its first attempt.
    """

    errand: str
    whim: str = "fine"
    secret: str = ""


class Done(BaseModel):
    """The reply of every step."""

    step: str
    secret: str = ""


orders = Saga("order", version=1, input=Errand, deadline=timedelta(minutes=10))


@orders.step(command="stock.reserve", reply=Done, timeout=TIMEOUT, retry=TRY)
def reserve(errand: Errand) -> Errand:
    return errand


@reserve.compensation(command="stock.release", timeout=TIMEOUT, retry=PATIENT)
def release(errand: Errand) -> Errand:
    return errand


@orders.step(command="bank.charge", reply=Done, timeout=TIMEOUT, retry=TRY)
def charge(errand: Errand, reserve: Done) -> Errand:
    return errand


@charge.compensation(command="bank.refund", timeout=TIMEOUT, retry=PATIENT)
def refund(errand: Errand, charge: Done | None) -> Errand:
    return errand


@orders.step(command="stock.ship", reply=Done, timeout=LONG, retry=TRY)
def ship(errand: Errand, charge: Done) -> Errand:
    return errand


@ship.compensation(command="stock.recall", timeout=TIMEOUT, retry=PATIENT)
def recall(errand: Errand) -> Errand:
    return errand


journeys = Saga("journey", version=1, input=Errand)


@journeys.step(command="travel.flight", reply=Done, timeout=TIMEOUT, retry=TRY, after=[])
def flight(errand: Errand) -> Errand:
    return errand


@flight.compensation(command="travel.no-flight", timeout=TIMEOUT, retry=PATIENT)
def no_flight(errand: Errand) -> Errand:
    return errand


@journeys.step(command="travel.hotel", reply=Done, timeout=TIMEOUT, retry=TRY, after=[])
def hotel(errand: Errand) -> Errand:
    return errand


@hotel.compensation(command="travel.no-hotel", timeout=TIMEOUT, retry=PATIENT)
def no_hotel(errand: Errand) -> Errand:
    return errand


@journeys.step(command="travel.car", reply=Done, timeout=TIMEOUT, retry=TRY, after=[flight])
def car(errand: Errand, flight: Done) -> Errand:
    return errand


@car.compensation(command="travel.no-car", timeout=TIMEOUT, retry=PATIENT)
def no_car(errand: Errand, car: Done | None) -> Errand:
    return errand


@journeys.step(
    command="bank.pay", reply=Done, timeout=TIMEOUT, retry=TRY, after=[hotel, car], pivot=True
)
def pay(errand: Errand, hotel: Done, car: Done) -> Errand:
    return errand


@pay.compensation(command="bank.repay", timeout=TIMEOUT, retry=PATIENT)
def repay(errand: Errand) -> Errand:
    return errand


@journeys.step(command="travel.ticket", reply=Done, timeout=TIMEOUT, retry=PATIENT)
def ticket(errand: Errand, pay: Done) -> Errand:
    return errand


COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        order.command: step.name
        for saga in (orders, journeys)
        for step in saga.steps.values()
        for order in (step.action, step.undo)
        if order is not None
    }
)
"""The step that each command belongs to."""


async def _perform(errand: Errand, tx: AsyncConnection, context: CommandContext) -> Done:
    whim, _, step = errand.whim.partition(":")
    here = step == context.step and context.direction == "action"
    if here and whim == "refused":
        raise Rejected("refused", f"It was asked for. {errand.secret}")
    if here and whim == "flaky" and context.attempt <= 2:
        raise ConnectionError(f"it was asked for {errand.secret}")
    await tx.execute(
        text(
            "INSERT INTO ledger (errand, step, direction, attempt)"
            " VALUES (:errand, :step, :direction, :attempt)"
        ),
        {
            "errand": errand.errand,
            "step": context.step,
            "direction": str(context.direction),
            "attempt": context.attempt,
        },
    )
    await lasting(random.uniform(*WORK_S))
    if here and whim == "slow" and context.attempt == 1:
        await tx.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": SLOW_S})
    return Done(step=context.step, secret=errand.secret)


def _participants(url: str | None) -> dict[str, Participant]:
    """One for each first word of a command."""
    found: dict[str, Any] = {}
    for saga in (orders, journeys):
        for step in saga.steps.values():
            name = step.action.command.partition(".")[0]
            participant = found.setdefault(name, Participant(name, database=url))
            participant.command(step.action.command)(_handler())
            if step.undo is not None:
                participant.compensation(step.undo.command, of=step.action.command)(_handler())
    return found


def _handler():
    """A function of its own for each command, as a service has them."""

    async def perform(errand: Errand, tx: AsyncConnection, context: CommandContext) -> Done:
        return await _perform(errand, tx, context)

    return perform


if url := os.environ.get(DATABASE):
    stock, bank, travel = (_participants(url)[name] for name in ("stock", "bank", "travel"))
