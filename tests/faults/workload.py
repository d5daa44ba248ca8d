"""
What the fault suite runs: two sagas, the services they ask, and the ledger those write.

    saga-engine worker tests.faults.workload:orders tests.faults.workload:journeys
    saga-engine participant tests.faults.workload

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
from tests.kit.programs import sleep

DATABASE = "SHOP_DATABASE_URL"

TIMEOUT = timedelta(seconds=3)
SLOW_S = 3.6
HANDLER_SECONDS = (0.02, 0.25)
"""Seconds that a command takes, at the least and at the most: whatever breaks then is in use."""

LONG_TIMEOUT = timedelta(seconds=15)
"""Longer than `outbox_resend_after`, so that the sweep finds commands somebody still waits for."""

LONG_RETRY = Retry(attempts=60, initial=timedelta(milliseconds=200), maximum=timedelta(seconds=2))
"""After the point of no return, and for undoing: longer than any fault of the suite."""

FORWARD_RETRY = Retry(
    attempts=20, initial=timedelta(milliseconds=100), maximum=timedelta(seconds=1)
)
"""Pauses of 13 s at the least: a watchdog takes 4 to restore a binding somebody deleted."""

MAKE_LEDGER = """
    CREATE TABLE ledger (id bigserial PRIMARY KEY, errand text NOT NULL, step text NOT NULL,
        direction text NOT NULL, attempt integer NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp())"""


class Job(BaseModel):
    """
    The input of both sagas, and the payload of every command.

    Whims: `fine`; `refused:STEP` is rejected there; `flaky:STEP` fails twice there; `slow:STEP`
    takes longer than its timeout at its first attempt.
    """

    job_id: str
    scenario: str = "fine"
    secret: str = ""


class StepResult(BaseModel):
    """The reply of every step."""

    step: str
    secret: str = ""


order_saga = Saga("order", version=1, input=Job, deadline=timedelta(minutes=10))


@order_saga.step(command="stock.reserve", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY)
def reserve(errand: Job) -> Job:
    return errand


@reserve.compensation(command="stock.release", timeout=TIMEOUT, retry=LONG_RETRY)
def release(errand: Job) -> Job:
    return errand


@order_saga.step(command="bank.charge", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY)
def charge(errand: Job, reserve: StepResult) -> Job:
    return errand


@charge.compensation(command="bank.refund", timeout=TIMEOUT, retry=LONG_RETRY)
def refund(errand: Job, charge: StepResult | None) -> Job:
    return errand


@order_saga.step(command="stock.ship", reply=StepResult, timeout=LONG_TIMEOUT, retry=FORWARD_RETRY)
def ship(errand: Job, charge: StepResult) -> Job:
    return errand


@ship.compensation(command="stock.recall", timeout=TIMEOUT, retry=LONG_RETRY)
def recall(errand: Job) -> Job:
    return errand


journey_saga = Saga("journey", version=1, input=Job)


@journey_saga.step(
    command="travel.flight", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[]
)
def flight(errand: Job) -> Job:
    return errand


@flight.compensation(command="travel.no-flight", timeout=TIMEOUT, retry=LONG_RETRY)
def no_flight(errand: Job) -> Job:
    return errand


@journey_saga.step(
    command="travel.hotel", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[]
)
def hotel(errand: Job) -> Job:
    return errand


@hotel.compensation(command="travel.no-hotel", timeout=TIMEOUT, retry=LONG_RETRY)
def no_hotel(errand: Job) -> Job:
    return errand


@journey_saga.step(
    command="travel.car", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[flight]
)
def car(errand: Job, flight: StepResult) -> Job:
    return errand


@car.compensation(command="travel.no-car", timeout=TIMEOUT, retry=LONG_RETRY)
def no_car(errand: Job, car: StepResult | None) -> Job:
    return errand


@journey_saga.step(
    command="bank.pay",
    reply=StepResult,
    timeout=TIMEOUT,
    retry=FORWARD_RETRY,
    after=[hotel, car],
    pivot=True,
)
def pay(errand: Job, hotel: StepResult, car: StepResult) -> Job:
    return errand


@pay.compensation(command="bank.repay", timeout=TIMEOUT, retry=LONG_RETRY)
def repay(errand: Job) -> Job:
    return errand


@journey_saga.step(command="travel.ticket", reply=StepResult, timeout=TIMEOUT, retry=LONG_RETRY)
def ticket(errand: Job, pay: StepResult) -> Job:
    return errand


COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        order.command: step.name
        for saga in (order_saga, journey_saga)
        for step in saga.steps.values()
        for order in (step.action_spec, step.compensation_spec)
        if order is not None
    }
)
"""The step that each command belongs to."""


async def _perform(errand: Job, tx: AsyncConnection, context: CommandContext) -> StepResult:
    whim, _, step = errand.scenario.partition(":")
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
            "errand": errand.job_id,
            "step": context.step,
            "direction": str(context.direction),
            "attempt": context.attempt,
        },
    )
    await sleep(random.uniform(*HANDLER_SECONDS))
    if here and whim == "slow" and context.attempt == 1:
        await tx.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": SLOW_S})
    return StepResult(step=context.step, secret=errand.secret)


def _participants(url: str | None) -> dict[str, Participant]:
    """One for each first word of a command."""
    found: dict[str, Any] = {}
    for saga in (order_saga, journey_saga):
        for step in saga.steps.values():
            name = step.action_spec.command.partition(".")[0]
            participant = found.setdefault(name, Participant(name, database=url))
            participant.command(step.action_spec.command)(_handler())
            if step.compensation_spec is not None:
                participant.compensation(
                    step.compensation_spec.command, of=step.action_spec.command
                )(_handler())
    return found


def _handler():
    """A function of its own for each command, as a service has them."""

    async def perform(errand: Job, tx: AsyncConnection, context: CommandContext) -> StepResult:
        return await _perform(errand, tx, context)

    return perform


if url := os.environ.get(DATABASE):
    stock, bank, travel = (_participants(url)[name] for name in ("stock", "bank", "travel"))
