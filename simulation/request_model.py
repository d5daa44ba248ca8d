"""Pending requests in the model."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.pending_requests import (
    DEFAULT_READ_LIMITS,
    NewRequest,
    PendingRequest,
    PendingStart,
    ReadLimits,
    RequestKind,
    request_columns,
)
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, limit_bytes, rows_of

PENDING_REQUEST_DEFAULTS: Row = {
    "run_id": "",
    "kind": "",
    "body": "",
    "saga": None,
    "version": None,
    "definition_id": None,
    "audit_id": None,
    "reply_to": None,
    "correlation_id": None,
    "sender": None,
    "key": None,
    "role": None,
    "fingerprint": None,
    "awaits_start": False,
    "not_before": None,
}
"""The columns of a pending request with their defaults."""


class RequestModel(MemoryTransaction):
    """`RequestStatements` in memory."""

    async def record_requests(self, requests: Sequence[NewRequest]) -> None:
        if not requests:
            return
        rows = list(rows_of(request_columns(requests)))
        async with self.statement():
            for row in rows:
                run = self.get("run", row["run_id"])
                if row["definition_id"] is None and row["kind"] != "start" and run is not None:
                    row["definition_id"] = run["definition_id"]
                delay = row.pop("delay")
                row["not_before"] = self.now + delay if delay > timedelta() else None
                if row["kind"] != "start" or not start_is_pending(self, row["run_id"]):
                    add_pending_request(self, row)

    async def find_starts(
        self, run_ids: Collection[str], count_limit: int = 0
    ) -> dict[str, PendingStart]:
        if not run_ids:
            return {}
        async with self.statement():
            if count_limit:
                starts = pending_start_ids(self)
                for number in [starts[each] for each in sorted(run_ids) if each in starts]:
                    await self.lock("pending_request", number)
            found = [
                self.get("pending_request", number) for number in pending_start_ids(self).values()
            ]
            return {
                row["run_id"]: PendingStart(
                    row["saga"], row["version"], row["key"], min(self._blocked(row), count_limit)
                )
                for row in found
                if row is not None and row["run_id"] in run_ids
            }

    def _blocked(self, start: Row) -> int:
        """How many requests wait for a start."""
        rows = (row for _, row in self.scan("pending_request"))
        return sum(row["run_id"] == start["run_id"] and row["awaits_start"] for row in rows)

    async def existing_runs(self, run_ids: Collection[str]) -> set[str]:
        async with self.statement():
            starts = pending_start_ids(self)
            return {each for each in run_ids if each in starts or self.get("run", each) is not None}

    async def read_starts(
        self, run_ids: Collection[str], body_limits: ReadLimits = DEFAULT_READ_LIMITS
    ) -> dict[str, PendingRequest]:
        if not run_ids:
            return {}
        async with self.statement():
            return {
                row["run_id"]: to_pending_request(row, body_limits)
                for _, row in sorted(self.scan("pending_request"))
                if row["kind"] == "start" and row["run_id"] in run_ids
            }

    async def take_requests(
        self,
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        async with self.statement():
            eligible = (
                row
                for row in self._takeable()
                if row["kind"] != "start" and _is_for_loaded_definition(row, definition_ids)
            )
            return take(self, islice(eligible, limit), body_limits, max_bytes)

    async def take_starts(
        self,
        slots: Mapping[str, int],
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        if not slots:
            return []
        async with self.statement():
            selected: list[Row] = []
            rows = list(self._takeable())
            for saga, slots_of_saga in slots.items():
                eligible = (row for row in rows if self._is_startable(row, saga, definition_ids))
                selected += islice(eligible, slots_of_saga)
            oldest = sorted(selected, key=lambda row: row["id"])
            taken = take(self, oldest[:limit], body_limits, max_bytes)
        await unblock_requests(self, taken)
        return taken

    async def defer_requests(self, ids: Sequence[int], delay: timedelta) -> None:
        async with self.statement():
            for number in ids:
                row = await self.lock("pending_request", number)
                if row is not None:
                    self.put("pending_request", number, {**row, "not_before": self.now + delay})

    async def sagas_with_starts(
        self, sagas: Sequence[str], definition_ids: Sequence[int]
    ) -> set[str]:
        async with self.statement():
            return self._sagas_with_starts(sagas, definition_ids)

    def _sagas_with_starts(self, sagas: Sequence[str], definition_ids: Sequence[int]) -> set[str]:
        rows = [row for _, row in self.scan("pending_request") if self._is_due(row)]
        return {
            saga
            for saga in sagas
            if any(self._is_startable(row, saga, definition_ids) for row in rows)
        }

    async def has_work(self, sagas: Sequence[str], definition_ids: Sequence[int]) -> bool:
        async with self.statement():
            has_request = any(
                row["kind"] != "start"
                and self._is_due(row)
                and _is_for_loaded_definition(row, definition_ids)
                for _, row in self.scan("pending_request")
            )
            return has_request or bool(self._sagas_with_starts(sagas, definition_ids))

    async def take_stranded_starts(
        self, min_age: timedelta, limit: int, body_limits: ReadLimits
    ) -> list[PendingRequest]:
        async with self.statement():
            known = {
                (row["name"], row["version"], row["fingerprint"])
                for _, row in self.scan("definition")
            }
            old = [
                row
                for row in self._takeable()
                if row["kind"] == "start"
                and row["role"] is not None
                and row["fingerprint"] is not None
                and (row["saga"], row["version"], row["fingerprint"]) not in known
                and row["received_at"] < self.now - min_age
            ]
            taken = take(self, old[:limit], body_limits)
        await unblock_requests(self, taken)
        return taken

    def _takeable(self) -> Iterator[Row]:
        """Requests that can be taken now, the longest due first."""
        for number, row in sorted(self.scan("pending_request"), key=_due_since):
            if self._is_due(row) and self.is_lockable("pending_request", number):
                yield row

    def _is_due(self, row: Row) -> bool:
        return row["not_before"] is None or row["not_before"] <= self.now

    def _is_startable(self, row: Row, saga: str, definition_ids: Sequence[int]) -> bool:
        if row["kind"] != "start" or row["saga"] != saga:
            return False
        if row["version"] is None:
            return row["fingerprint"] is None
        return any(
            each["id"] in definition_ids
            and (each["name"], each["version"]) == (saga, row["version"])
            and row["fingerprint"] in (None, each["fingerprint"])
            for _, each in self.scan("definition")
        )


def add_pending_request(tx: MemoryTransaction, row: Row) -> None:
    """Add a pending request; missing columns have their defaults."""
    number = tx.next_value("pending_request")
    tx.put(
        "pending_request",
        number,
        {**PENDING_REQUEST_DEFAULTS, "id": number, "received_at": tx.now, **row},
    )


def take(
    tx: MemoryTransaction,
    rows: Iterable[Row],
    body_limits: ReadLimits,
    max_bytes: int = UNLIMITED_BYTES,
) -> list[PendingRequest]:
    """Delete the first of these rows, and return them in the order of their ids."""
    found = list(rows)
    for row in found:
        tx.lock_unlocked("pending_request", row["id"])
    taken = list(limit_bytes(found, "body", max_bytes))
    for row in taken:
        tx.delete("pending_request", row["id"])
    requests = [to_pending_request(row, body_limits) for row in taken]
    return sorted(requests, key=lambda request: request.id)


async def unblock_requests(tx: MemoryTransaction, taken: Iterable[PendingRequest]) -> None:
    """Release the requests that wait for starts that were taken."""
    run_ids = {request.run_id for request in taken if request.kind == RequestKind.START}
    if not run_ids:
        return
    async with tx.statement():
        for number, row in list(tx.scan("pending_request")):
            if row["run_id"] in run_ids and row["kind"] != "start" and row["awaits_start"]:
                await tx.lock("pending_request", number)
                tx.put("pending_request", number, {**row, "awaits_start": False})


def to_pending_request(row: Row, limits: ReadLimits) -> PendingRequest:
    """Read a row; a long body is cut."""
    size = len(row["body"].encode())
    is_complete = size <= (limits.engine_bytes if row["role"] is None else limits.role_bytes)
    return PendingRequest(
        id=row["id"],
        kind=row["kind"],
        run_id=row["run_id"],
        body=row["body"] if is_complete else row["body"][: limits.excerpt_bytes],
        body_size=size,
        body_complete=is_complete,
        saga=row["saga"],
        version=row["version"],
        definition_id=row["definition_id"],
        audit_id=row["audit_id"],
        reply_to=row["reply_to"],
        correlation_id=row["correlation_id"],
        sender=row["sender"],
        key=row["key"],
        role=row["role"],
        fingerprint=row["fingerprint"],
    )


def pending_start_ids(tx: MemoryTransaction) -> dict[str, int]:
    """The pending starts by run id."""
    return {
        row["run_id"]: number
        for number, row in tx.scan("pending_request")
        if row["kind"] == "start"
    }


def start_is_pending(tx: MemoryTransaction, run_id: str) -> bool:
    """Whether the start of a run is pending."""
    rows = (row for _, row in tx.scan("pending_request"))
    return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)


def _due_since(item: tuple[Any, Row]) -> tuple[datetime, int]:
    number, row = item
    return row["not_before"] or row["received_at"], number


def _is_for_loaded_definition(row: Row, definition_ids: Sequence[int]) -> bool:
    is_loaded = row["definition_id"] is None or row["definition_id"] in definition_ids
    return not row["awaits_start"] and is_loaded
