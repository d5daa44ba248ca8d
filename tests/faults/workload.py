"""
The workload of the fault suite: two sagas, their participants, and the log of their effects.

    saga-engine worker tests.faults.workload:order_saga tests.faults.workload:journey_saga
    saga-engine participant tests.faults.workload

`order` has three sequential steps. `journey` books three things concurrently, pays (the pivot) and
prints a ticket. The scenario of a job says what its participants do. They log each effect as a row
of `effect_log`, and append its events (`event_workload.py`), in the database of the engine: so one
projector reads these and the journals of the runs.
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
from tests.faults.event_workload import append_effect
from tests.kit.programs import sleep

DATABASE = "SHOP_DATABASE_URL"

TIMEOUT = timedelta(seconds=3)
SLOW_S = 3.6
HANDLER_SECONDS = (0.05, 0.35)
"""Minimum and maximum duration of a command, so that connections are in use when they break."""

LONG_TIMEOUT = timedelta(seconds=15)
"""Longer than `outbox_resend_after`, so that commands are resent before their timeout."""

LONG_RETRY = Retry(attempts=60, initial=timedelta(milliseconds=200), maximum=timedelta(seconds=2))
"""For steps after the pivot and for compensations: longer than any fault of the suite."""

FORWARD_RETRY = Retry(
    attempts=20, initial=timedelta(milliseconds=100), maximum=timedelta(seconds=1)
)
"""Delays of at least 13 s: restoring a deleted binding takes up to 4 s."""

CREATE_EFFECT_LOG = """
    CREATE TABLE effect_log (id bigserial PRIMARY KEY, job_id text NOT NULL, step text NOT NULL,
        direction text NOT NULL, attempt integer NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp())"""


class Job(BaseModel):
    """
    The input of both sagas, and the payload of every command.

    Scenarios: `succeed`; `reject:STEP` rejects that step; `flaky:STEP` fails its first two
    attempts; `slow:STEP` takes longer than the timeout in its first attempt.
    """

    job_id: str
    scenario: str = "succeed"
    secret: str = ""


class StepResult(BaseModel):
    """The reply of every step."""

    step: str
    secret: str = ""


order_saga = Saga("order", version=1, input=Job, deadline=timedelta(minutes=10))


@order_saga.step(command="stock.reserve", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY)
def reserve(job: Job) -> Job:
    return job


@reserve.compensation(command="stock.release", timeout=TIMEOUT, retry=LONG_RETRY)
def release(job: Job) -> Job:
    return job


@order_saga.step(command="bank.charge", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY)
def charge(job: Job, reserve: StepResult) -> Job:
    return job


@charge.compensation(command="bank.refund", timeout=TIMEOUT, retry=LONG_RETRY)
def refund(job: Job, charge: StepResult | None) -> Job:
    return job


@order_saga.step(command="stock.ship", reply=StepResult, timeout=LONG_TIMEOUT, retry=FORWARD_RETRY)
def ship(job: Job, charge: StepResult) -> Job:
    return job


@ship.compensation(command="stock.recall", timeout=TIMEOUT, retry=LONG_RETRY)
def recall(job: Job) -> Job:
    return job


journey_saga = Saga("journey", version=1, input=Job)


@journey_saga.step(
    command="travel.flight", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[]
)
def flight(job: Job) -> Job:
    return job


@flight.compensation(command="travel.no-flight", timeout=TIMEOUT, retry=LONG_RETRY)
def no_flight(job: Job) -> Job:
    return job


@journey_saga.step(
    command="travel.hotel", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[]
)
def hotel(job: Job) -> Job:
    return job


@hotel.compensation(command="travel.no-hotel", timeout=TIMEOUT, retry=LONG_RETRY)
def no_hotel(job: Job) -> Job:
    return job


@journey_saga.step(
    command="travel.car", reply=StepResult, timeout=TIMEOUT, retry=FORWARD_RETRY, after=[flight]
)
def car(job: Job, flight: StepResult) -> Job:
    return job


@car.compensation(command="travel.no-car", timeout=TIMEOUT, retry=LONG_RETRY)
def no_car(job: Job, car: StepResult | None) -> Job:
    return job


@journey_saga.step(
    command="bank.pay",
    reply=StepResult,
    timeout=TIMEOUT,
    retry=FORWARD_RETRY,
    after=[hotel, car],
    pivot=True,
)
def pay(job: Job, hotel: StepResult, car: StepResult) -> Job:
    return job


@pay.compensation(command="bank.repay", timeout=TIMEOUT, retry=LONG_RETRY)
def repay(job: Job) -> Job:
    return job


@journey_saga.step(command="travel.ticket", reply=StepResult, timeout=TIMEOUT, retry=LONG_RETRY)
def ticket(job: Job, pay: StepResult) -> Job:
    return job


COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        spec.command: step.name
        for saga in (order_saga, journey_saga)
        for step in saga.steps.values()
        for spec in (step.action_spec, step.compensation_spec)
        if spec is not None
    }
)
"""The step that each command belongs to."""


async def _perform(job: Job, tx: AsyncConnection, context: CommandContext) -> StepResult:
    scenario, _, step = job.scenario.partition(":")
    applies = step == context.step and context.direction == "action"
    if applies and scenario == "reject":
        raise Rejected("rejected", f"The scenario wants it. {job.secret}")
    if applies and scenario == "flaky" and context.attempt <= 2:
        raise ConnectionError(f"the scenario wants it {job.secret}")
    await tx.execute(
        text(
            "INSERT INTO effect_log (job_id, step, direction, attempt)"
            " VALUES (:job_id, :step, :direction, :attempt)"
        ),
        {
            "job_id": job.job_id,
            "step": context.step,
            "direction": str(context.direction),
            "attempt": context.attempt,
        },
    )
    await append_effect(tx, job.job_id, context.step, str(context.direction))
    await sleep(random.uniform(*HANDLER_SECONDS))  # readers of events wait for this transaction
    if applies and scenario == "slow" and context.attempt == 1:
        await tx.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": SLOW_S})
    return StepResult(step=context.step, secret=job.secret)


def _participants(url: str | None) -> dict[str, Participant]:
    """One participant for each first word of a command."""
    participants: dict[str, Any] = {}
    for saga in (order_saga, journey_saga):
        for step in saga.steps.values():
            name = step.action_spec.command.partition(".")[0]
            participant = participants.setdefault(name, Participant(name, database=url))
            participant.command(step.action_spec.command)(_handler())
            if step.compensation_spec is not None:
                participant.compensation(
                    step.compensation_spec.command, of=step.action_spec.command
                )(_handler())
    return participants


def _handler():
    """A new function for each command, as a service has them."""

    async def perform(job: Job, tx: AsyncConnection, context: CommandContext) -> StepResult:
        return await _perform(job, tx, context)

    return perform


if url := os.environ.get(DATABASE):
    stock, bank, travel = (_participants(url)[name] for name in ("stock", "bank", "travel"))
