"""
Bugs that an engineer could write: each is a small patch of the real code, planted for one test.

The simulation must find each of them. docs/reliability.md lists them with their docstrings.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson

from saga_engine.decider import advance, commands, decide, replies
from saga_engine.decider.decision import Decision, DecisionBuilder
from saga_engine.decider.events import Event, RunCompleted
from saga_engine.decider.replies import StepMessage
from saga_engine.decider.run import Run, StepState, StepStatus
from saga_engine.decider.step_in_direction import StepInDirection
from saga_engine.decider.triggers import ReplyReceived
from saga_engine.errors import StoreUnavailable
from saga_engine.participant import barrier, batch_executor
from saga_engine.participant.barrier import BarrierTable, CommandResult
from saga_engine.participant.executor import Executor
from saga_engine.participant.handler import Handler
from saga_engine.participant.handler_runner import ExecutionState
from saga_engine.participant.interfaces import (
    CommandTransaction,
    HandlerRolledBack,
    SharedTransaction,
)
from saga_engine.participant.reply_publisher import ReplyPublisher, _UnconfirmedReply
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.run_result import result_of_run
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import runs as store_runs
from saga_engine.store.batch_append import AppendResult, BatchAppend, RunAppend
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.store.outbox import StaleCommands
from saga_engine.store.pending_requests import NewRequest, PendingRequest, PendingStart
from saga_engine.store.runs import StoredRun
from saga_engine.store.snapshot import to_snapshot
from saga_engine.telemetry.events import InternalErrorCaught, describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import Command, Direction, IgnoredReason, Outcome, Status
from saga_engine.worker import (
    batch_runner,
    batch_transaction,
    decode_pending,
    flush,
    start_preparation,
    transaction_runner,
    worker_queues,
)
from saga_engine.worker.batch_runner import BatchRunner, LockStrategy
from saga_engine.worker.batch_transaction import CAREFUL, BatchTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.decode import decode_deliveries
from saga_engine.worker.emit import emit_committed
from saga_engine.worker.loops import WorkerLoops
from saga_engine.worker.pending_request_duties import PendingRequestDuties
from saga_engine.worker.run_cache import RunCache
from saga_engine.worker.start_preparation import PreparedStart, StartPreparer
from saga_engine.worker.starts import StartProcessor
from saga_engine.worker.transaction_runner import (
    BatchOperation,
    CommittedBatch,
    TransactionRunner,
)
from saga_engine.worker.work_item import (
    DeadLetterItem,
    WorkBatch,
    WorkItem,
    is_timer,
    start_of,
)
from simulation.append_model import AppendModel
from simulation.barrier_model import BarrierModel
from simulation.memory_store import MemoryStoreTransaction
from simulation.partition_model import month_of_run
from simulation.rows import Row
from tests.simulation.bug_patcher import BugPatcher

BugFunction = Callable[[BugPatcher], None]

BUGS: dict[str, tuple[BugFunction, tuple[str, ...]]] = {}


def planted_bug(*promises: str) -> Callable[[BugFunction], BugFunction]:
    """Register a function that plants a bug, and the promises of which the bug breaks one."""

    def register(function: BugFunction) -> BugFunction:
        BUGS[function.__name__] = (function, promises)
        return function

    return register


# worker


@planted_bug("P6")
def acknowledge_before_the_commit(plant: BugPatcher) -> None:
    """Deliveries are acknowledged before their transaction."""

    async def process_deliveries(self: WorkerLoops, deliveries: Sequence[Delivery]) -> None:
        await self._consumer.acknowledge(deliveries)
        keys = self._outbox_publisher.token_keys.accepted
        work_batch = await decode_deliveries(deliveries, keys, self._settings, self._encryption)
        await self._batch_runner.process(work_batch)
        self._batch_slots.release()

    plant.replace(WorkerLoops, "_process_deliveries", process_deliveries)


@planted_bug("P6")
def publish_before_the_commit(plant: BugPatcher) -> None:
    """Commands are published inside the transaction that decides them."""

    async def run_once(self: TransactionRunner, operation: BatchOperation) -> CommittedBatch:
        confirmed_ids = self._outbox_publisher.take_confirmed()
        with self.admission.track_transaction() as admitted:
            async with self._store.transaction() as tx:
                changes = ChangeSet(await tx.database_now(), admitted)
                batch = BatchTransaction(
                    tx, self._registry, self.admission, self._cache, changes, self._settings
                )
                count = await operation(tx, batch)
                await flush.flush_changes(tx, changes, self._settings, confirmed_ids)
                await self._outbox_publisher.publish_batch(changes.after_commit)
        emit_committed(self._emit, changes)
        return CommittedBatch(count or 0, (), changes.needing_care)

    plant.replace(TransactionRunner, "run_once", run_once)


@planted_bug("P6")
def treat_failed_commit_as_committed(plant: BugPatcher) -> None:
    """A batch whose commit failed is not processed again."""

    async def process(
        self: BatchRunner, work_batch: WorkBatch, failures: int = 0
    ) -> list[Delivery]:
        del failures
        with suppress(StoreUnavailable):
            await self._transactions.run(
                partial(batch_runner._process, work_batch, LockStrategy.WAIT_FOR_LOCKS, CAREFUL)
            )
        return []

    plant.replace(BatchRunner, "process", process)


@planted_bug("P6")
def delete_command_before_confirm(plant: BugPatcher) -> None:
    """A command is deleted from the outbox when it is published."""
    after_commit = TransactionRunner._after_commit

    async def delete_at_once(self: TransactionRunner, changes: ChangeSet) -> None:
        ids = [row.id for row in changes.after_commit.commands]
        with suppress(StoreUnavailable):
            async with self._store.transaction() as tx:
                await tx.append_runs(BatchAppend(confirmed_ids=ids))
        await after_commit(self, changes)

    plant.replace(TransactionRunner, "_after_commit", delete_at_once)


@planted_bug("P6", "P7")
def acknowledge_malformed_without_recording(plant: BugPatcher) -> None:
    """A message that cannot be decoded is acknowledged without a dead letter."""

    def record_nothing(self: ChangeSet, dead_letter: DeadLetterItem) -> None:
        del self, dead_letter

    plant.replace(ChangeSet, "add_dead_letter", record_nothing)


@planted_bug("P1")
def never_resend(plant: BugPatcher) -> None:
    """Unconfirmed commands are never published again."""

    class ClaimNothing(MemoryStoreTransaction):
        async def claim_stale_commands(
            self, age: timedelta, limit: int, *, max_bytes: int = UNLIMITED_BYTES
        ) -> StaleCommands:
            del age, limit, max_bytes
            return StaleCommands([], 0)

    plant.replace_store(ClaimNothing)


@planted_bug("P1")
def lose_timers_on_crash(plant: BugPatcher) -> None:
    """Timeouts and retries are not stored with the run."""

    def never(saga: Saga, run: Run) -> datetime | None:
        del saga, run
        return None

    plant.replace(batch_transaction, "wake_at", never)
    plant.replace(start_preparation, "wake_at", never)


@planted_bug("P1")
def clear_timer_without_next(plant: BugPatcher) -> None:
    """A timer that fires is cleared, and the next one is not stored."""
    apply = BatchTransaction._apply

    def apply_and_clear(
        self: BatchTransaction,
        saga: Saga,
        before: StoredRun,
        decision: Decision,
        work_item: WorkItem,
    ) -> Run:
        run = apply(self, saga, before, decision, work_item)
        if is_timer(work_item):
            stored = self._changes.runs[run.run_id]
            self._changes.runs[run.run_id] = replace(stored, wake_at=None)
        return run

    plant.replace(BatchTransaction, "_apply", apply_and_clear)


@planted_bug("P6")
def ignore_pending_starts(plant: BugPatcher) -> None:
    """A run whose start is pending is unknown to requests."""

    class FindNone(MemoryStoreTransaction):
        async def find_starts(
            self, run_ids: Collection[str], count_limit: int = 0
        ) -> dict[str, PendingStart]:
            del run_ids, count_limit
            return {}

    plant.replace_store(FindNone)


@planted_bug("P5", "P7")
def append_without_the_fence(plant: BugPatcher) -> None:
    """A row gets the next free revision instead of the one after the revision decided on."""

    class AppendAtTheEnd(MemoryStoreTransaction):
        async def append_runs(self, batch: BatchAppend) -> AppendResult:
            found = await self.read_runs([each.journal_row.run_id for each in batch.runs])
            runs = [_at_revision(each, found.get(each.journal_row.run_id)) for each in batch.runs]
            return await super().append_runs(replace(batch, runs=runs))

    plant.replace_store(AppendAtTheEnd)


def _at_revision(append: RunAppend, current: StoredRun | None) -> RunAppend:
    if current is None:
        return append
    revision = current.revision + 1
    return replace(
        append,
        stored_run=replace(append.stored_run, revision=revision),
        journal_row=replace(append.journal_row, revision=revision),
    )


@planted_bug("P5")
def remember_runs_without_failures(plant: BugPatcher) -> None:
    """A worker remembers a run without the failures of its steps."""
    keep = RunCache.keep

    def keep_without_failures(self: RunCache, stored: StoredRun, epoch: int | None) -> None:
        steps = {
            name: replace(state, action=replace(state.action, failure=None))
            for name, state in stored.run.steps.items()
        }
        keep(self, replace(stored, run=replace(stored.run, steps=steps)), epoch)

    plant.replace(RunCache, "keep", keep_without_failures)


@planted_bug("P5")
def leave_the_status_out_of_a_snapshot(plant: BugPatcher) -> None:
    """A snapshot has no status, as if the column of the run were that of the snapshot."""

    def without_status(run: Run) -> dict[str, Any]:
        return {name: each for name, each in to_snapshot(run).items() if name != "status"}

    plant.replace(store_runs, "to_snapshot", without_status)


@planted_bug("P5")
def leave_the_row_of_a_finished_run(plant: BugPatcher) -> None:
    """The row of a run is written only if its timer moves."""
    change = AppendModel._changed_row

    def only_timers(self: AppendModel, new: Row) -> Row | None:
        old, changed = self.get("run", new["run_id"]), change(self, new)
        if old is None or changed is None or old["wake_at"] == changed["wake_at"]:
            return None
        return {**old, "wake_at": changed["wake_at"]}

    plant.replace(AppendModel, "_changed_row", only_timers)


@planted_bug("P6")
def ignore_a_reply_on_a_stale_run(plant: BugPatcher) -> None:
    """A decision without events counts although the run has changed since it was read."""

    class CheckNothing(MemoryStoreTransaction):
        async def append_runs(self, batch: BatchAppend) -> AppendResult:
            result = await super().append_runs(batch)
            return replace(result, lost=result.lost.difference(batch.unchanged))

    plant.replace_store(CheckNothing)


@planted_bug("P1")
def lose_a_timer_to_a_stale_wake_up(plant: BugPatcher) -> None:
    """A wake-up that finds nothing due moves the timer without a row of the journal."""
    flush_changes = flush.flush_changes

    async def move_unfenced(
        tx: StoreTransaction,
        changes: ChangeSet,
        settings: Settings,
        confirmed_ids: Sequence[int] = (),
    ) -> AppendResult | None:
        decided = {each.after.run_id for each in changes.after_commit.decisions}
        for run_id in changes.woken_run_ids - decided:
            stored = changes.runs[run_id]
            if stored.wake_at is not None:
                await tx.defer_wake(run_id, stored.wake_at - changes.now)
        changes.woken_run_ids &= decided
        return await flush_changes(tx, changes, settings, confirmed_ids)

    plant.replace(transaction_runner, "flush_changes", move_unfenced)


@planted_bug("P1")
def leave_the_earlier_queues(plant: BugPatcher) -> None:
    """After a change of their number, queues of replies of the earlier number are not consumed."""
    queues_of = worker_queues.worker_queues

    def without_earlier(settings: Settings) -> worker_queues.WorkerQueues:
        return replace(queues_of(settings), earlier={})

    plant.replace(worker_queues, "worker_queues", without_earlier)


@planted_bug("P7")
def decode_pending_rows_together(plant: BugPatcher) -> None:
    """One pending request that is not JSON fails the whole batch."""
    decode_each = decode_pending.decode_requests

    def decode_together(requests: Iterable[PendingRequest], settings: Settings) -> WorkBatch:
        rows = list(requests)
        orjson.loads(f"[{','.join(row.body for row in rows)}]")
        return decode_each(rows, settings)

    plant.replace(decode_pending, "decode_requests", decode_together)


@planted_bug("P1")
def choose_version_at_admission(plant: BugPatcher) -> None:
    """A start without a version is pinned when a slot is free, not when it is accepted."""

    def queue_unpinned(self: ChangeSet, work_item: WorkItem, run: Run) -> None:
        self.await_admission(replace(work_item, answer_to=None))
        result = result_of_run(run)
        self.answer(work_item.answer_to, AnswerOutcome.ACCEPTED, run.run_id, result)

    plant.replace(ChangeSet, "queue_accepted_start", queue_unpinned)


@planted_bug("P1")
def start_newest_loaded_version(plant: BugPatcher) -> None:
    """A worker starts an accepted run with its newest version."""

    def newest(self: StartPreparer, work_item: WorkItem) -> int | None:
        return self._registry.startable_definition_id(work_item.saga, None)

    plant.replace(StartPreparer, "definition_id", newest)


@planted_bug("P1")
def drop_partition_with_pending_start(plant: BugPatcher) -> None:
    """A partition is dropped although a start in it is pending."""

    class IgnoreStarts(MemoryStoreTransaction):
        def has_needed_rows(self, month: str, cutoff: datetime) -> bool:
            runs_of = [row for key, row in self.scan("run") if month_of_run(key) == month]
            ended = [row["finished_at"] for row in runs_of]
            return any(at is None or at > cutoff for at in ended)

        def is_orphaned(self, request: Row) -> bool:
            return self.get("run", request["run_id"]) is None

    plant.replace_store(IgnoreStarts)


@planted_bug("P1")
def release_keys_of_unfinished_runs(plant: BugPatcher) -> None:
    """A refused start releases a business key that another run holds."""
    resolve_key = StartProcessor._resolve_key

    async def resolve_and_release(
        self: StartProcessor, prepared: PreparedStart, key_owner: KeyOwner | None
    ) -> None:
        await resolve_key(self, prepared, key_owner)
        if key_owner is not None and key_owner.run_id != prepared.work_item.run_id:
            key = start_of(prepared.work_item).key
            assert key is not None
            assert isinstance(self._tx, MemoryStoreTransaction)
            async with self._tx.statement():
                await self._tx.lock("business_key", (prepared.work_item.saga, key))
                self._tx.delete("business_key", (prepared.work_item.saga, key))

    plant.replace(StartProcessor, "_resolve_key", resolve_and_release)


@planted_bug("P1")
def record_no_outcome_of_refused_request(plant: BugPatcher) -> None:
    """A refused operator request gets no outcome."""
    refuse = ChangeSet.refuse

    def refuse_without_outcome(
        self: ChangeSet,
        work_item: WorkItem,
        outcome: AnswerOutcome,
        detail: str,
        run_id: str | None = None,
    ) -> None:
        refuse(self, replace(work_item, audit_id=None), outcome, detail, run_id)

    plant.replace(ChangeSet, "refuse", refuse_without_outcome)


@planted_bug("P1")
def lose_audit_id_of_deferred_request(plant: BugPatcher) -> None:
    """A deferred operator request loses its audit record."""
    pending_request = flush._pending_request

    def without_audit_id(work_item: WorkItem, changes: ChangeSet, delay: timedelta) -> NewRequest:
        return replace(pending_request(work_item, changes, delay), audit_id=None)

    plant.replace(flush, "_pending_request", without_audit_id)


@planted_bug("P7")
def misreport_load_as_bug(plant: BugPatcher) -> None:
    """Pending requests beyond `max_batch_bytes` are reported as an internal error."""

    async def process_and_misreport(self: PendingRequestDuties) -> bool:
        try:
            return await self._process_batches()
        except transaction_runner.DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - as in the code it replaces
            self._emit(
                InternalErrorCaught(operation=Operation.PENDING_WORK, problem=describe_error(error))
            )
            return await self._process_oldest()

    plant.replace(PendingRequestDuties, "process", process_and_misreport)


# store


@planted_bug("P5")
def omit_journal_event(plant: BugPatcher) -> None:
    """An event is missing in the journal."""

    class AppendSome(MemoryStoreTransaction):
        async def append_runs(self, batch: BatchAppend) -> AppendResult:
            runs = [
                replace(each, journal_row=_without_compensating(each.journal_row))
                for each in batch.runs
            ]
            return await super().append_runs(replace(batch, runs=runs))

    plant.replace_store(AppendSome)


def _without_compensating(row: NewJournalRow) -> NewJournalRow:
    decisions = [
        NewDecision(
            [event for event in decision.events if type(event).__name__ != "RunCompensating"],
            decision.metadata,
        )
        for decision in row.decisions
    ]
    return replace(row, decisions=decisions)


@planted_bug("P1")
def skip_incident_row(plant: BugPatcher) -> None:
    """An incident is in the run and not in the table of incidents."""

    class RecordNone(MemoryStoreTransaction):
        async def record_incidents(self, events: Sequence[tuple[str, Event]]) -> None:
            del events

    plant.replace_store(RecordNone)


@planted_bug("P1")
def reserve_taken_keys(plant: BugPatcher) -> None:
    """A business key is reserved for several runs."""

    class ReserveAll(MemoryStoreTransaction):
        async def reserve_keys(
            self, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
        ) -> list[KeyOwner | None]:
            del encryption
            return [KeyOwner(each.run_id, same_input=True) for each in requests]

    plant.replace_store(ReserveAll)


# core


@planted_bug("P3")
def compensate_in_forward_order(plant: BugPatcher) -> None:
    """Steps are compensated in the order in which they were done."""

    def forward(builder: DecisionBuilder, name: str, remaining: Collection[str]) -> bool:
        pending = builder.run.steps[name].compensation.status is StepStatus.PENDING
        return pending and not any(each in remaining for each in builder.saga.ancestors[name])

    plant.replace(advance, "_can_start_compensation", forward)


@planted_bug("P3")
def compensate_everything_at_once(plant: BugPatcher) -> None:
    """Steps are compensated without regard to their dependencies."""

    def at_once(builder: DecisionBuilder, name: str, remaining: Collection[str]) -> bool:
        del remaining
        return builder.run.steps[name].compensation.status is StepStatus.PENDING

    plant.replace(advance, "_can_start_compensation", at_once)


@planted_bug("P3")
def ignore_a_late_success(plant: BugPatcher) -> None:
    """A success that arrives after its step was given up is ignored."""

    def never(step: StepInDirection) -> bool:
        del step
        return False

    plant.replace(replies, "_is_uncovered", never)


@planted_bug("P3")
def treat_timeout_as_no_effect(plant: BugPatcher) -> None:
    """A step whose outcome is unknown is not compensated."""

    def is_done(state: StepState) -> bool:
        return state.action.status is StepStatus.SUCCEEDED

    plant.replace(StepState, "may_have_effect", property(is_done))


@planted_bug("P3")
def treat_sent_compensation_as_done(plant: BugPatcher) -> None:
    """A compensation counts as done when its command is sent."""

    def is_sent(state: StepState) -> bool:
        return state.compensation.attempts > 0

    plant.replace(StepState, "compensation_done", property(is_sent))


@planted_bug("P3", "P2", "P4")
def treat_rejected_compensation_as_done(plant: BugPatcher) -> None:
    """A rejected compensation counts as done."""
    on_message = replies.on_message

    def accept_rejection(builder: DecisionBuilder, message: StepMessage) -> IgnoredReason | None:
        if isinstance(message, ReplyReceived) and message.direction is Direction.COMPENSATION:
            rejected = message.outcome is Outcome.REJECTED
            message = replace(message, outcome=Outcome.SUCCEEDED) if rejected else message
        return on_message(builder, message)

    plant.replace(replies, "on_message", accept_rejection)


@planted_bug("P4")
def give_each_attempt_its_own_key(plant: BugPatcher) -> None:
    """Each attempt of a command has another idempotency key."""
    original_commands = commands.commands_to_send

    def with_unstable_keys(run: Run, events: Sequence[Event]) -> Iterator[Command]:
        for send in original_commands(run, events):
            yield replace(send, idempotency_key=f"{send.idempotency_key}/{send.attempt}")

    plant.replace(flush, "commands_to_send", with_unstable_keys)


@planted_bug("P1")
def never_retry(plant: BugPatcher) -> None:
    """A step that waits for its retry is never sent again."""
    due_directions = decide._due_directions

    def without_retries(builder: DecisionBuilder, status: StepStatus) -> list[StepInDirection]:
        return [] if status is StepStatus.AWAITING_RETRY else due_directions(builder, status)

    plant.replace(decide, "_due_directions", without_retries)


@planted_bug("P2", "P3")
def complete_when_last_step_succeeds(plant: BugPatcher) -> None:
    """A run completes when its last step succeeds, although other branches are running."""
    original_advance = advance.advance

    def complete_early(builder: DecisionBuilder) -> None:
        last = list(builder.saga.steps)[-1]
        running = builder.run.status is Status.RUNNING
        if running and builder.run.steps[last].action.status is StepStatus.SUCCEEDED:
            builder.record(RunCompleted(builder.now))
        original_advance(builder)

    plant.replace(decide, "advance", complete_early)


# participant


@planted_bug("P4")
def remove_barrier(plant: BugPatcher) -> None:
    """The participant does not use its barrier."""

    async def claim_everything(
        barrier_table: BarrierTable, command: Command, *, compensates_local_action: bool
    ) -> CommandResult | None:
        del barrier_table, command, compensates_local_action
        return None

    async def record_nothing(self: BarrierModel, command: Command, result: CommandResult) -> bool:
        del self, command, result
        return True

    plant.replace(barrier, "claim_command", claim_everything)
    plant.replace(BarrierModel, "record_result", record_nothing)


@planted_bug("P4")
def keep_effects_of_failed_commands(plant: BugPatcher) -> None:
    """A batch does not roll back the effects of a command that was rejected or failed."""

    async def keep_everything(_tx: SharedTransaction, _result: CommandResult) -> bool:
        return True

    plant.replace(batch_executor, "_keep_effects", keep_everything)


@planted_bug("P4")
def compensate_without_effect(plant: BugPatcher) -> None:
    """The compensation of an action without effect calls the handler."""
    claim_command = barrier.claim_command

    async def claim_always(
        barrier_table: BarrierTable, command: Command, *, compensates_local_action: bool
    ) -> CommandResult | None:
        del compensates_local_action
        return await claim_command(barrier_table, command, compensates_local_action=False)

    plant.replace(barrier, "claim_command", claim_always)


@planted_bug("P3", "P4")
def omit_barrier_row(plant: BugPatcher) -> None:
    """An empty compensation leaves no row in the barrier's table, so a late action takes effect."""
    insert_tombstone = BarrierModel.insert_tombstone

    async def insert_no_tombstone(self: BarrierModel, command: Command) -> bool:
        nothing_to_compensate = await insert_tombstone(self, command)
        if nothing_to_compensate:
            async with self._tx.statement():
                self._tx.delete("barrier", (command.run_id, command.step, Direction.ACTION.value))
        return nothing_to_compensate

    plant.replace(BarrierModel, "insert_tombstone", insert_no_tombstone)


@planted_bug("P3", "P4")
def record_the_barrier_in_a_transaction_of_its_own(plant: BugPatcher) -> None:
    """The barrier row and the effect are committed in two transactions."""

    async def execute_claimed(
        self: Executor, handler: Handler, state: ExecutionState, tx: CommandTransaction
    ) -> CommandResult:
        assert self._database is not None
        async with self._database.transaction() as separate:
            answer = await self._call_handler(handler, state, separate)
            if answer.outcome is not Outcome.SUCCEEDED:
                raise HandlerRolledBack(answer)
        await tx.barrier.record_result(state.received.command, answer)
        return answer

    plant.replace(Executor, "_execute_claimed", execute_claimed)


@planted_bug("P2", "P3", "P4", "P6")
def treat_in_progress_command_as_done(plant: BugPatcher) -> None:
    """A command that is in progress is answered with success."""
    execute = Executor.execute

    async def reply_early(self: Executor, received: ReceivedCommand) -> CommandResult:
        try:
            return await execute(self, received)
        except barrier.CommandInProgress:
            return CommandResult(Outcome.SUCCEEDED, b"null")

    plant.replace(Executor, "execute", reply_early)


@planted_bug("P6")
def acknowledge_a_command_before_its_reply_is_confirmed(plant: BugPatcher) -> None:
    """A command is acknowledged before its reply is confirmed."""

    async def publish(self: ReplyPublisher, batch: list[_UnconfirmedReply]) -> None:
        await self._consumer.acknowledge(reply.delivery for reply in batch)
        await self._publisher.publish([reply.message for reply in batch])
        self._unconfirmed = [reply for reply in self._unconfirmed if reply not in batch]

    plant.replace(ReplyPublisher, "_publish", publish)


@planted_bug("P4", "P6")
def reply_before_the_commit(plant: BugPatcher) -> None:
    """A slow command is answered before its transaction commits."""
    execute_with_timeout = Executor._execute_with_timeout

    async def reply_early(
        self: Executor, handler: Handler, received: ReceivedCommand
    ) -> CommandResult:
        loop = asyncio.get_running_loop()
        execution = loop.create_task(execute_with_timeout(self, handler, received))
        done, _ = await asyncio.wait([execution], timeout=0.001)
        if done:
            return execution.result()
        return CommandResult(Outcome.SUCCEEDED, b"1")

    plant.replace(Executor, "_execute_with_timeout", reply_early)
