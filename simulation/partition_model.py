"""
What the store's statements of partitions mean in the model: months of runs, and what drops them.

Time is shorter here. A month is the second that a run id names, and it begins when ids of that
second are too old to be accepted, `ID_AGE` later; runs are kept for `KEPT`, whatever the settings
say. So months come and go within a simulation whose run ids are made a week ago.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from saga_engine.store import partitions
from simulation.memory_database import Answers, Row, Transaction, name_of
from simulation.run_model import UNFINISHED, settle

Arguments = Mapping[str, Any]

ANSWERS = Answers()

ID_AGE = timedelta(days=7)
"""How old an id may be when its run is asked for, as `run_id_age_days` says by default."""

KEPT = timedelta(seconds=30)
"""How long a run is kept when it is finished."""

DETACHED, DROPPED = "detached", "dropped"
"""Where the rows of a month go: a table of their own, and then only the judge sees them."""

KEEP = ("run", "event")

GONE = "The run was finished, and was dropped with its month."


def month_of(run_id: str) -> str:
    """Tell the month of a run id."""
    return str((UUID(run_id).int >> 80) // 1000)


@ANSWERS.to(partitions, "_CUTOFF")
async def _cutoff(tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [(tx.now - KEPT,)]


@ANSWERS.to(partitions, "_PAST")
async def _past(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    months = {month_of(run_id) for run_id, _ in tx.every("run")}
    return [(month,) for month in sorted(months) if _end(month) < arguments["cutoff"]]


def _end(month: str) -> datetime:
    return datetime.fromtimestamp(int(month) + 1, UTC) + ID_AGE


@ANSWERS.to(partitions, "_NEEDED")
async def _needed(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    return [(month_needed(tx, arguments["month"], arguments["cutoff"]),)]


def month_needed(tx: Transaction, month: str, cutoff: datetime) -> bool:
    """Whether a run of a month is not finished, or a start of it waits: the function of SQL."""
    rows = (row for run_id, row in tx.every("run") if month_of(run_id) == month)
    if any(row["status"] in UNFINISHED or _ended_after(row, cutoff) for row in rows):
        return True
    starts = (row for _, row in tx.every("inbox") if row["kind"] == "start")
    return any(month_of(row["run_id"]) == month for row in starts)


def _ended_after(row: Row, cutoff: datetime) -> bool:
    return row["finished_at"] is not None and row["finished_at"] > cutoff


@ANSWERS.to(partitions, "_SUMMARIZE")
async def _summarize(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [(None,)]  # there is one portion, whatever is in it


@ANSWERS.to_template(partitions, "_RELEASE")
async def _release(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    mine = [row for run_id, row in tx.every("run") if month_of(run_id) == arguments["month"]]
    later = sorted((row["run_id"], row) for row in mine if row["run_id"] > arguments["after"])
    page = later[: arguments["page"]]
    for run_id, row in page:
        pair = (name_of(tx, row["definition_id"])[0], row["key"])
        held = await tx.lock("run_key", pair)
        finished = row["finished_at"] is not None and not _ended_after(row, arguments["cutoff"])
        if held is not None and held["run_id"] == run_id and finished:
            tx.delete("run_key", pair)
    return [(page[-1][0],)] if page else []


@ANSWERS.to(partitions, "_IMPATIENT")
async def _impatient(_tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [("",)]


@ANSWERS.to(partitions, "_DETACH")
async def _detach(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    await tx.lock_table("run")
    tx.look_again()
    month = arguments["month"]
    if month_needed(tx, month, arguments["cutoff"]):
        return [(0,)]
    _move(tx, "", DETACHED, month)
    return [(1,)]


@ANSWERS.to(partitions, "_DETACHED")
async def _detached(tx: Transaction, _: Arguments) -> Sequence[Any]:
    return [(month,) for month in sorted({month_of(key) for key, _ in tx.every("detached run")})]


@ANSWERS.to(partitions, "_INCIDENTS")
async def _incidents(tx: Transaction, arguments: Arguments) -> int:
    keys = [key for key, _ in tx.every("incident") if month_of(key[0]) == arguments["month"]]
    old = [key for key in keys if tx.get("run", key[0]) is None][: arguments["page"]]
    for key in old:
        await tx.lock("incident", key)
        tx.delete("incident", key)
    return len(old)


@ANSWERS.to(partitions, "_REQUESTS")
async def _requests(tx: Transaction, arguments: Arguments) -> Sequence[Any]:
    rows = [row for _, row in tx.every("inbox") if month_of(row["run_id"]) == arguments["month"]]
    old = [row["id"] for row in rows if is_left_over(tx, row) and tx.free("inbox", row["id"])]
    acts = []
    for number in old[: arguments["page"]]:
        tx.grab("inbox", number)
        acts.append((row := tx.get("inbox", number)) and row["audit_id"])
        tx.delete("inbox", number)
    verdicts = {"ids": acts, "outcomes": ["refused"] * len(acts), "messages": [GONE] * len(acts)}
    await settle(tx, verdicts)
    return [(act,) for act in acts]


def is_left_over(tx: Transaction, row: Row) -> bool:
    """Whether a request is of a run that is gone, and that no start will begin."""
    run_id = row["run_id"]
    starts = {each["run_id"] for _, each in tx.every("inbox") if each["kind"] == "start"}
    return run_id not in starts and tx.get("run", run_id) is None


@ANSWERS.to_template(partitions, "_DROP")
async def _drop(tx: Transaction, arguments: Arguments) -> int:
    _move(tx, DETACHED, DROPPED, arguments["month"])
    return 0


def _move(tx: Transaction, source: str, target: str, month: str) -> None:
    for table in KEEP:
        there = f"{source} {table}".strip()
        for key, row in list(tx.every(there)):
            if month_of(row["run_id"]) == month:
                tx.delete(there, key)
                tx.put(f"{target} {table}", key, row)
