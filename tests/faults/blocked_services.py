"""
A saga and its participant that block their event loop, like a call of a blocking library.

Each blocks once in the lifetime of its process, if the input of a run wants it.
"""

import os
from datetime import timedelta
from threading import Event

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine import Participant, Retry, Saga

BLOCK_SECONDS = 16.0
"""RabbitMQ closes a connection after two to three heartbeats of 5 s without traffic."""

DATABASE = "BLOCKED_DATABASE_URL"

_not_yet_blocked = {"worker", "participant"}


class Job(BaseModel):
    job_id: str
    blocked_in: str = ""


def block_process(process_kind: str, job: Job) -> None:
    if job.blocked_in == process_kind and process_kind in _not_yet_blocked:
        _not_yet_blocked.discard(process_kind)
        Event().wait(BLOCK_SECONDS)


job_saga = Saga("job", version=1, input=Job)


@job_saga.step(
    command="blocked.record",
    timeout=timedelta(seconds=5),
    retry=Retry(attempts=20, initial=timedelta(seconds=1), maximum=timedelta(seconds=1)),
)
def record(job: Job) -> Job:
    block_process("worker", job)
    return job


@record.compensation(command="blocked.remove")
def remove(job: Job) -> Job:
    return job


if url := os.environ.get(DATABASE):
    blocked = Participant("blocked", database=url)

    @blocked.command("blocked.record")
    async def insert(job: Job, tx: AsyncConnection) -> None:
        await tx.execute(
            text("INSERT INTO recorded_effect VALUES (:job_id)"), {"job_id": job.job_id}
        )
        block_process("participant", job)

    @blocked.compensation("blocked.remove", of="blocked.record")
    async def delete(job: Job, tx: AsyncConnection) -> None:
        await tx.execute(
            text("DELETE FROM recorded_effect WHERE job_id = :job_id"), job.model_dump()
        )
