"""
The engine's database as the worker uses it: what a transaction can do, by role.

    Store               opens transactions, and does the maintenance that takes many short ones
    StoreTransaction    one transaction: all of the roles below
    RunStatements, RequestStatements, OutboxStatements, RecordStatements, DefinitionStatements,
    SuspectStatements   the statements of one role

The worker takes a `Store` and knows no other part of the database. `sql_store` is the one in
PostgreSQL; each of its methods calls the function of this package whose docstring says more about
its arguments, errors and locks. The simulation has one in memory, and the tests of this package run
on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from saga_engine.decider.events import Event
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.protocol.run_result import RunResult
from saga_engine.saga.definition import Saga
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


class RunStatements(Protocol):
    """The rows of runs, their timers and their business keys."""

    async def database_now(self) -> datetime:
        """Read the database's clock, which is the clock of every worker."""

    async def locked_runs(self, run_ids: Collection[str]) -> set[str]:
        """Find which of these runs another transaction has locked; to be executed on its own."""

    async def read_runs(
        self, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
    ) -> dict[str, StoredRun]:
        """Read the runs that exist, without locking them."""

    async def read_statuses(self, run_ids: Collection[str]) -> dict[str, RunResult]:
        """Read the statuses of runs without locking them; runs that do not exist are left out."""

    async def append_runs(self, batch: BatchAppend) -> AppendResult:
        """
        Append what a batch has decided, in one statement, and say which runs it lost.

        Unless the transaction has started, the statement is committed alone.
        """

    async def read_outcome(
        self, batch: BatchAppend, *, outbox_after: int | None
    ) -> AppendResult | None:
        """Read what was appended of a batch whose answer was lost; see `batch_outcome`."""

    async def claim_due_runs(
        self,
        definition_ids: Sequence[int],
        limit: int,
        *,
        lease: timedelta,
        excluding: Collection[str] = (),
    ) -> DueRuns:
        """Claim up to *limit* due runs for *lease*, skipping those that are locked elsewhere."""

    async def due_run_ids(self, definition_ids: Sequence[int], limit: int) -> list[str]:
        """Return the ids of up to *limit* due runs, without reading their journals."""

    async def due_within(
        self, horizons: Mapping[int, timedelta], count_limit: int
    ) -> dict[str, int]:
        """Count, by saga, the runs whose timer is due soon."""

    async def defer_wake(self, run_id: str, delay: timedelta) -> None:
        """Defer the timer of a run that cannot be processed, so that other runs have their turn."""

    async def reserve_keys(
        self, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
    ) -> list[KeyOwner | None]:
        """Reserve the keys that no run has, and return the owner of each, in order."""

    async def release_key(self, saga: str, key: str, run_id: str) -> None:
        """Give a key back, unless the run that it was reserved for is there and has it."""


class RequestStatements(Protocol):
    """Starts and other requests that wait in PostgreSQL for a worker."""

    async def record_requests(self, requests: Sequence[NewRequest]) -> None:
        """Record *requests*, in order. A start of a run that has a pending start is left out."""

    async def find_starts(
        self, run_ids: Collection[str], count_limit: int = 0
    ) -> dict[str, PendingStart]:
        """Find the pending starts of these runs, by run id."""

    async def existing_runs(self, run_ids: Collection[str]) -> set[str]:
        """Find which of these runs exist or have a pending start."""

    async def read_starts(
        self, run_ids: Collection[str], body_limits: ReadLimits = DEFAULT_READ_LIMITS
    ) -> dict[str, PendingRequest]:
        """Read the pending starts of these runs, by run id, without taking them."""

    async def take_requests(
        self,
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        """Take up to *limit* requests for started runs that this worker can process."""

    async def take_starts(
        self,
        slots: Mapping[str, int],
        *,
        definition_ids: Sequence[int],
        limit: int,
        body_limits: ReadLimits = DEFAULT_READ_LIMITS,
        max_bytes: int = UNLIMITED_BYTES,
    ) -> list[PendingRequest]:
        """Take up to *limit* starts that this worker can process, oldest first."""

    async def defer_requests(self, ids: Sequence[int], delay: timedelta) -> None:
        """Defer requests: no worker takes them before *delay* has passed."""

    async def sagas_with_starts(
        self, sagas: Sequence[str], definition_ids: Sequence[int]
    ) -> set[str]:
        """Find which of *sagas* have pending starts that this worker can take."""

    async def has_work(self, sagas: Sequence[str], definition_ids: Sequence[int]) -> bool:
        """Whether this worker can take anything: a start of *sagas*, or another request."""

    async def take_stranded_starts(
        self, min_age: timedelta, limit: int, body_limits: ReadLimits
    ) -> list[PendingRequest]:
        """Take starts of other roles older than *min_age* that no worker could process."""


class OutboxStatements(Protocol):
    """Commands that were decided and may not be published yet."""

    async def claim_stale_commands(
        self, age: timedelta, limit: int, *, max_bytes: int = UNLIMITED_BYTES
    ) -> StaleCommands:
        """Claim up to *limit* commands that have not been claimed for *age*, oldest first."""


class RecordStatements(Protocol):
    """What people read: incidents, dead letters, outcomes of actions, counts."""

    async def record_incidents(self, events: Sequence[tuple[str, Event]]) -> None:
        """Open and resolve the incidents of *events*, each with its run id; others are ignored."""

    async def record_dead_letters(
        self, letters: Sequence[DeadLetter], max_body_bytes: int, quota: int
    ) -> None:
        """Record dead letters, with at most *max_body_bytes* of each body."""

    async def record_outcomes(self, outcomes: Sequence[ActionOutcome]) -> None:
        """Record the outcomes of actions. The first outcome of an action stays."""

    async def count_backlog(self, count_limit: int) -> BacklogCounts:
        """Count what is unfinished, open or pending; finished runs are not read."""


class DefinitionStatements(Protocol):
    """The definitions that workers have, and the keys of this engine."""

    async def register_definitions(
        self, sagas: Sequence[Saga], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> dict[tuple[str, int], int]:
        """Register *sagas* as present now, and return their ids by name and version."""

    async def refresh_presence(
        self, ids: Collection[int], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> None:
        """Report that a worker has these definitions now; new starts are pinned to such ones."""

    async def known_versions(self, names: Collection[str]) -> set[tuple[str, int]]:
        """Find which versions of these sagas a worker has ever loaded."""

    async def token_keys(self) -> TokenKeys:
        """Read the keys that sign and check correlation ids; the first call generates one."""


class SuspectStatements(Protocol):
    """Runs whose mapping function or validator ended a worker."""

    async def read_suspects(self) -> dict[str, CrashSuspect]:
        """Read at most `SUSPECTS_MAX` suspects, by run id."""

    async def read_suspects_with_work(self) -> dict[str, CrashSuspect]:
        """Read the suspects that have a pending request or a due timer, by run id."""

    async def read_suspects_among(self, run_ids: Collection[str]) -> dict[str, CrashSuspect]:
        """Read those of *run_ids* that are suspects."""

    async def lock_suspect(self, run_id: str) -> bool:
        """Reserve a run until the end of the transaction, unless another transaction has."""

    async def clear_suspects(self, run_ids: Collection[str]) -> None:
        """Delete suspects whose call has returned."""

    async def allow_retry(self, run_id: str) -> None:
        """Allow the call once more if an operator has requested a `retry` of the run."""

    async def delete_expired_suspects(self) -> None:
        """Delete suspects of more than a day ago whose run is finished or never started."""

    async def take_oldest_request(
        self, run_id: str, definition_ids: Sequence[int], body_limits: ReadLimits
    ) -> list[PendingRequest]:
        """Take the oldest pending request of *run_id*, its start before all others."""


class StoreTransaction(
    RunStatements,
    RequestStatements,
    OutboxStatements,
    RecordStatements,
    DefinitionStatements,
    SuspectStatements,
    Protocol,
):
    """
    One transaction. A method sees what others have committed before it was called.

    Nothing is visible to others until the block of `Store.transaction` has ended. In a
    `Store.batch` the transaction begins with `begin`, or with the first method that changes or
    locks rows, unless that is `append_runs` or `locked_runs`.
    """

    @property
    def has_started(self) -> bool:
        """Whether the next statements are one transaction; otherwise each commits on its own."""

    @property
    def epoch(self) -> int | None:
        """A number that is another one when the server may be another one; None: not known."""

    async def begin(self) -> None:
        """Make the next statements one transaction, unless they are."""


class Store(Protocol):
    """The engine's database, as the worker uses it."""

    def transaction(self) -> AbstractAsyncContextManager[StoreTransaction]:
        """
        Open one transaction: committed when the block ends, rolled back when it raises.

        Raises:
            StoreUnavailable: try again later; whether it was committed is unknown.
        """

    def batch(self) -> AbstractAsyncContextManager[StoreTransaction]:
        """
        Open a transaction that begins only when it has to.

        A batch that only reads and appends is one or two statements without BEGIN and COMMIT.

        Raises:
            StoreUnavailable: as `transaction`.
        """

    async def maintain_partitions(
        self,
        *,
        retention_days: int,
        months_ahead: int,
        lock_retry: LockRetry,
        retention_hold: float,
    ) -> MaintenanceResult:
        """Add the partitions of the coming months and drop the months that have expired."""

    async def purge_expired(self, *, dead_letter_days: int, audit_days: int) -> int:
        """Delete expired rows, and return how many there were."""
