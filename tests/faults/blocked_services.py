"""
A saga and its participant that block their event loop, as a call of a blocking library would.

Each does it once in the life of its process, when a run asks for it.
"""

import os
from datetime import timedelta
from threading import Event

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine import Participant, Retry, Saga

BLOCK_SECONDS = 16.0
"""RabbitMQ takes a peer for dead after two to three heartbeats of 5 s without a word of it."""

DATABASE = "BLOCKED_DATABASE_URL"

_unblocked = {"worker", "participant"}


class Job(BaseModel):
    job_id: str
    blocked_in: str = ""


def block_process(process_kind: str, errand: Job) -> None:
    if errand.blocked_in == process_kind and process_kind in _unblocked:
        _unblocked.discard(process_kind)
        Event().wait(BLOCK_SECONDS)


job_saga = Saga("errand", version=1, input=Job)


@job_saga.step(
    command="desk.note",
    timeout=timedelta(seconds=5),
    retry=Retry(attempts=20, initial=timedelta(seconds=1), maximum=timedelta(seconds=1)),
)
def note(errand: Job) -> Job:
    block_process("worker", errand)
    return errand


@note.compensation(command="desk.forget")
def forget(errand: Job) -> Job:
    return errand


if url := os.environ.get(DATABASE):
    desk = Participant("desk", database=url)

    @desk.command("desk.note")
    async def perform(errand: Job, tx: AsyncConnection) -> None:
        await tx.execute(text("INSERT INTO noted VALUES (:errand)"), {"errand": errand.job_id})
        block_process("participant", errand)

    @desk.compensation("desk.forget", of="desk.note")
    async def undo(errand: Job, tx: AsyncConnection) -> None:
        await tx.execute(text("DELETE FROM noted WHERE errand = :errand"), errand.model_dump())
