"""
The worker's `Store` in PostgreSQL: one line for each method of `interfaces`.

The functions and their statements are in the module of their table.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from saga_engine.decider.events import Event
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.postgres.statement import BatchOfStatements, BatchSource, Transaction
from saga_engine.protocol.run_result import RunResult
from saga_engine.saga.definition import Saga
from saga_engine.store import (
    audit,
    backlog_counts,
    batch_append,
    batch_outcome,
    business_keys,
    crash_suspects,
    dead_letters,
    definitions,
    due_runs,
    engine_identity,
    incidents,
    outbox,
    partitions,
    pending_requests,
    request_queue,
    retention,
    run_statuses,
    runs,
    stranded_starts,
)
from saga_engine.store.audit import ActionOutcome
from saga_engine.store.backlog_counts import BacklogCounts
from saga_engine.store.batch_append import AppendResult, BatchAppend
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.definitions import DEFAULT_PRESENCE_POLICY, PresencePolicy
from saga_engine.store.due_runs import DueRuns
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.outbox import StaleCommands
from saga_engine.store.partitions import LockRetry, MaintenanceResult
from saga_engine.store.pending_requests import (
    DEFAULT_READ_LIMITS,
    NewRequest,
    PendingRequest,
    PendingStart,
    ReadLimits,
)
from saga_engine.store.runs import StoredRun


class SqlStoreTransaction:
    """
    A StoreTransaction over one transaction of PostgreSQL.

    A method that changes or locks rows begins the transaction, unless it is `append_runs` or
    `locked_runs`.
    """

    def __init__(self, tx: BatchOfStatements) -> None:
        self._tx = tx

    @property
    def has_started(self) -> bool:
        return self._tx.has_started

    @property
    def epoch(self) -> int | None:
        return self._tx.epoch

    async def begin(self) -> None:
        await self._tx.begin()

    async def _in_transaction(self) -> Transaction:
        await self._tx.begin()
        return self._tx

    async def database_now(self) -> datetime:
        return await runs.database_now(self._tx)

    async def locked_runs(self, run_ids: Collection[str]) -> set[str]:
        return await runs.locked(self._tx, run_ids)

    async def read_runs(
        self, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
    ) -> dict[str, StoredRun]:
        return await runs.read(self._tx, run_ids, max_bytes=max_bytes)

    async def read_statuses(self, run_ids: Collection[str]) -> dict[str, RunResult]:
        return await run_statuses.read(self._tx, run_ids)

    async def append_runs(self, batch: BatchAppend) -> AppendResult:
        return await batch_append.append(self._tx, batch)

    async def read_outcome(
        self, batch: BatchAppend, *, outbox_after: int | None
    ) -> AppendResult | None:
        return await batch_outcome.read(self._tx, batch, outbox_after=outbox_after)

    async def claim_due_runs(
        self,
        definition_ids: Sequence[int],
        limit: int,
        *,
        lease: timedelta,
        excluding: Collection[str] = (),
    ) -> DueRuns:
        return await due_runs.claim_due(
            await self._in_transaction(), definition_ids, limit, lease=lease, excluding=excluding
        )

    async def due_run_ids(self, definition_ids: Sequence[int], limit: int) -> list[str]:
        return await due_runs.due_run_ids(self._tx, definition_ids, limit)

    async def due_within(
        self, horizons: Mapping[int, timedelta], count_limit: int
    ) -> dict[str, int]:
        return await due_runs.due_within(self._tx, horizons, count_limit)

    async def defer_wake(self, run_id: str, delay: timedelta) -> None:
        await due_runs.defer_wake(await self._in_transaction(), run_id, delay)

    async def reserve_keys(
        self, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
    ) -> list[KeyOwner | None]:
        return await business_keys.try_reserve(await self._in_transaction(), requests, encryption)

    async def release_key(self, saga: str, key: str, run_id: str) -> None:
        await business_keys.release(await self._in_transaction(), saga, key, run_id)

    async def record_requests(self, requests: Sequence[NewRequest]) -> None:
        await pending_requests.record(await self._in_transaction(), requests)

    async def find_starts(
        self, run_ids: Collection[str], count_limit: int = 0
    ) -> dict[str, PendingStart]:
        tx = await self._in_transaction() if count_limit else self._tx
        return await pending_requests.find_starts(tx, run_ids, count_limit)

    async def existing_runs(self, run_ids: Collection[str]) -> set[str]:
        return await pending_requests.existing_runs(self._tx, run_ids)

    async def read_starts(
        self, run_ids: Collection[str], body_limits: ReadLimits = DEFAULT_READ_LIMITS
    ) -> dict[str, PendingRequest]:
        return await pending_requests.read_starts(self._tx, run_ids, body_limits)

    async def take_requests(
        self,
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        return await request_queue.take(
            await self._in_transaction(),
            definition_ids=definition_ids,
            limit=limit,
            body_limits=body_limits,
            max_bytes=max_bytes,
        )

    async def take_starts(
        self,
        slots: Mapping[str, int],
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        return await request_queue.take_starts(
            await self._in_transaction(),
            slots,
            definition_ids=definition_ids,
            limit=limit,
            body_limits=body_limits,
            max_bytes=max_bytes,
        )

    async def defer_requests(self, ids: Sequence[int], delay: timedelta) -> None:
        await request_queue.defer(await self._in_transaction(), ids, delay)

    async def sagas_with_starts(
        self, sagas: Sequence[str], definition_ids: Sequence[int]
    ) -> set[str]:
        return await request_queue.sagas_with_starts(self._tx, sagas, definition_ids)

    async def has_work(self, sagas: Sequence[str], definition_ids: Sequence[int]) -> bool:
        return await request_queue.has_work(self._tx, sagas, definition_ids)

    async def take_stranded_starts(
        self, min_age: timedelta, limit: int, body_limits: ReadLimits
    ) -> list[PendingRequest]:
        return await stranded_starts.take_without_definition(
            await self._in_transaction(), min_age, limit, body_limits
        )

    async def claim_stale_commands(
        self, age: timedelta, limit: int, *, max_bytes: int = UNLIMITED_BYTES
    ) -> StaleCommands:
        return await outbox.claim_stale(
            await self._in_transaction(), age, limit, max_bytes=max_bytes
        )

    async def record_incidents(self, events: Sequence[tuple[str, Event]]) -> None:
        await incidents.record(await self._in_transaction(), events)

    async def record_dead_letters(
        self, letters: Sequence[DeadLetter], max_body_bytes: int, quota: int
    ) -> None:
        await dead_letters.record(await self._in_transaction(), letters, max_body_bytes, quota)

    async def record_outcomes(self, outcomes: Sequence[ActionOutcome]) -> None:
        await audit.record_outcomes(await self._in_transaction(), outcomes)

    async def count_backlog(self, count_limit: int) -> BacklogCounts:
        return await backlog_counts.count_backlog(self._tx, count_limit)

    async def register_definitions(
        self, sagas: Sequence[Saga], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> dict[tuple[str, int], int]:
        return await definitions.register(await self._in_transaction(), sagas, policy)

    async def refresh_presence(
        self, ids: Collection[int], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> None:
        await definitions.refresh_presence(await self._in_transaction(), ids, policy)

    async def known_versions(self, names: Collection[str]) -> set[tuple[str, int]]:
        return await definitions.known_versions(self._tx, names)

    async def token_keys(self) -> TokenKeys:
        return await engine_identity.token_keys(await self._in_transaction())

    async def read_suspects(self) -> dict[str, CrashSuspect]:
        return await crash_suspects.read_all(self._tx)

    async def read_suspects_with_work(self) -> dict[str, CrashSuspect]:
        return await crash_suspects.read_with_work(self._tx)

    async def read_suspects_among(self, run_ids: Collection[str]) -> dict[str, CrashSuspect]:
        return await crash_suspects.read_among(self._tx, run_ids)

    async def lock_suspect(self, run_id: str) -> bool:
        return await crash_suspects.try_lock(await self._in_transaction(), run_id)

    async def clear_suspects(self, run_ids: Collection[str]) -> None:
        await crash_suspects.clear(await self._in_transaction(), run_ids)

    async def allow_retry(self, run_id: str) -> None:
        await crash_suspects.allow_retry(await self._in_transaction(), run_id)

    async def delete_expired_suspects(self) -> None:
        await crash_suspects.delete_expired(await self._in_transaction())

    async def take_oldest_request(
        self, run_id: str, definition_ids: Sequence[int], body_limits: ReadLimits
    ) -> list[PendingRequest]:
        return await crash_suspects.take_oldest_request(
            await self._in_transaction(), run_id, definition_ids, body_limits
        )


class SqlStore:
    """
    A Store over a pool or a session.

    Args:
        database: opens the transactions.
    """

    def __init__(self, database: BatchSource) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlStoreTransaction]:
        async with self.batch() as tx:
            await tx.begin()
            yield tx

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[SqlStoreTransaction]:
        async with self._database.batch() as tx:
            yield SqlStoreTransaction(tx)

    async def maintain_partitions(
        self,
        *,
        retention_days: int,
        months_ahead: int,
        lock_retry: LockRetry,
        retention_hold: float,
    ) -> MaintenanceResult:
        return await partitions.maintain(
            self._database,
            retention_days=retention_days,
            months_ahead=months_ahead,
            lock_retry=lock_retry,
            retention_hold=retention_hold,
        )

    async def purge_expired(self, *, dead_letter_days: int, audit_days: int) -> int:
        return await retention.purge_expired(
            self._database, dead_letter_days=dead_letter_days, audit_days=audit_days
        )
