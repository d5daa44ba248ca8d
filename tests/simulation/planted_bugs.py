"""
Bugs that an engineer could write, each a small patch of the real code and the promise it breaks.

Each is planted for the time of a test, which must see the simulation find it.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import cast

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.decider import decide, effects, progress, replies
from saga_engine.decider.decide import Decision
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.effects import SendCommand
from saga_engine.decider.events import Event, RunCompleted
from saga_engine.decider.progress import _needs_compensation
from saga_engine.decider.replies import LATE
from saga_engine.decider.run import Run, StepRun, StepStatus
from saga_engine.decider.triggers import ReplyReceived
from saga_engine.errors import StoreUnavailable
from saga_engine.participant import barrier
from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.database import HandlerRolledBack
from saga_engine.participant.executor import ExecutionState, Executor
from saga_engine.participant.handler import Handler
from saga_engine.participant.reply_publisher import ReplyPublisher, _UnconfirmedReply
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.command import Command, ReceivedCommand
from saga_engine.protocol.message import Delivery, Message, PublishOutcome
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import business_keys, incidents, journal, outbox, pending_requests, runs
from saga_engine.store.business_keys import KeyOwner, KeyRequest
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.journal import NewEvent
from saga_engine.store.outbox import OutboxRow, StaleCommands
from saga_engine.store.pending_requests import NewRequest, PendingRequest, PendingStart
from saga_engine.store.runs import StoredRun
from saga_engine.telemetry.events import InternalErrorCaught, describe_error
from saga_engine.vocabulary import Direction, Outcome, Status
from saga_engine.worker import (
    batch_runner,
    batch_transaction,
    change_set,
    decode_pending,
    flush,
    starts,
)
from saga_engine.worker.batch_runner import BatchOperation, BatchRunner
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.decode import decode_deliveries
from saga_engine.worker.duties import Duties
from saga_engine.worker.emit import emit_committed
from saga_engine.worker.loops import WorkerLoops
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.starts import PreparedStart, StartProcessor
from saga_engine.worker.work_item import DeadLetterItem, WorkBatch, WorkItem
from simulation import memory_database, partition_model
from tests.simulation.bug_patcher import BugPatcher

BugFunction = Callable[[BugPatcher], None]

BUGS: dict[str, tuple[BugFunction, tuple[str, ...]]] = {}


def planted_bug(*promises: str) -> Callable[[BugFunction], BugFunction]:
    """Declare a bug: a function that plants it, and the promises of which it breaks one."""

    def register(function: BugFunction) -> BugFunction:
        BUGS[function.__name__] = (function, promises)
        return function

    return register


# worker


@planted_bug("P6")
def acknowledge_before_the_commit(plant: BugPatcher) -> None:
    async def deal_with(self: WorkerLoops, deliveries: Sequence[Delivery]) -> None:
        await self._consumer.acknowledge(deliveries)
        keys = self._outbox_publisher.token_keys.accepted
        intake = await decode_deliveries(deliveries, keys, self._settings, self._encryption)
        await self._batch_runner.process(intake)
        self._batch_slots.release()

    plant.replace(WorkerLoops, "_process_deliveries", deal_with)


@planted_bug("P6")
def publish_before_the_commit(plant: BugPatcher) -> None:
    async def once(self: BatchRunner, work: BatchOperation) -> int:
        with self.admission.track_transaction() as entering:
            async with self._database.transaction() as tx:
                found = ChangeSet(await runs.database_now(tx), entering)
                batch = BatchTransaction(tx, self._registry, self.admission, found, self._settings)
                number = await work(tx, batch)
                await flush.flush_changes(tx, found, self._settings)
                await outbox.delete(tx, self._outbox_publisher.confirmed_ids)
                await self._outbox_publisher.publish_batch(found.after_commit)
        emit_committed(self._emit, found)
        return number or 0

    plant.replace(BatchRunner, "run_transaction", once)


@planted_bug("P6")
def treat_failed_commit_as_committed(plant: BugPatcher) -> None:
    async def take(self: BatchRunner, intake: WorkBatch, failures: int = 0) -> list[Delivery]:
        del failures
        with suppress(StoreUnavailable):
            await self.run_transaction(partial(batch_runner._process, intake, wait_for_locks=True))
        return []

    plant.replace(BatchRunner, "process", take)


@planted_bug("P6")
def delete_command_before_confirm(plant: BugPatcher) -> None:
    commands = OutboxPublisher.publish_commands

    async def forgetting(
        self: OutboxPublisher,
        rows: Sequence[OutboxRow],
        told: Sequence[Message] = (),
        *,
        again: bool = False,
    ) -> Sequence[PublishOutcome]:
        self.confirmed_ids.extend(row.id for row in rows)
        return await commands(self, rows, told, resend=again)

    plant.replace(OutboxPublisher, "publish_commands", forgetting)


@planted_bug("P6", "P7")
def acknowledge_malformed_without_recording(plant: BugPatcher) -> None:
    def nothing(self: ChangeSet, letter: DeadLetterItem) -> None:
        del self, letter

    plant.replace(ChangeSet, "add_dead_letter", nothing)


@planted_bug("P1")
def never_sweep(plant: BugPatcher) -> None:
    async def nothing(
        tx: SqlAlchemyTransaction, age: timedelta, limit: int, *, most: int = outbox.UNLIMITED_BYTES
    ) -> StaleCommands:
        del tx, age, limit, most
        return StaleCommands([], 0)

    plant.replace(outbox, "claim_stale", nothing)


@planted_bug("P1")
def lose_timers_on_crash(plant: BugPatcher) -> None:
    """They are kept in the memory of the worker that sent the command, and nowhere else."""

    def never(saga: Saga, run: Run) -> datetime | None:
        del saga, run
        return None

    plant.replace(batch_transaction, "wake_at", never)
    plant.replace(starts, "wake_at", never)


@planted_bug("P1")
def clear_timer_without_next(plant: BugPatcher) -> None:
    apply = BatchTransaction._apply

    def forgetting(
        self: BatchTransaction,
        saga: Saga,
        before: StoredRun,
        decision: Decision,
        arrival: WorkItem | None,
    ) -> Run:
        run = apply(self, saga, before, decision, arrival)
        if arrival is None:
            stored = self._changes.locked_runs[run.run_id]
            self._changes.locked_runs[run.run_id] = replace(stored, wake_at=None)
        return run

    plant.replace(BatchTransaction, "_apply", forgetting)


@planted_bug("P6")
def ignore_pending_starts(plant: BugPatcher) -> None:
    async def none(
        tx: SqlAlchemyTransaction, run_ids: Collection[str], held: int = 0
    ) -> dict[str, PendingStart]:
        del tx, run_ids, held
        return {}

    plant.replace(pending_requests, "find_starts", none)


@planted_bug("P5", "P7")
def decide_without_the_lock(plant: BugPatcher) -> None:
    plant.replace(runs, "lock", runs.read_unlocked)


@planted_bug("P7")
def decode_pending_rows_together(plant: BugPatcher) -> None:
    """One body that is not JSON fails the batch, and the batch is all that anybody recorded."""
    read_each = decode_pending.decode_requests

    def together(items: Iterable[PendingRequest], settings: Settings) -> WorkBatch:
        rows = list(items)
        orjson.loads(f"[{','.join(row.body for row in rows)}]")
        return read_each(rows, settings)

    plant.replace(decode_pending, "decode_requests", together)


@planted_bug("P1")
def choose_version_at_admission(plant: BugPatcher) -> None:
    """A start that names no version is kept as it came, not as it was accepted."""

    def queue(self: ChangeSet, arrival: WorkItem, run: Run) -> None:
        self.await_admission(replace(arrival, answer_to=None))
        status = change_set.status_of_run(run)
        self.answer(arrival.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status)

    plant.replace(ChangeSet, "queue_accepted_start", queue)


@planted_bug("P1")
def start_newest_loaded_version(plant: BugPatcher) -> None:
    """A worker with a newer version begins with it what was accepted for an older one."""

    def newest(self: StartProcessor, arrival: WorkItem) -> int | None:
        return self._registry.startable_definition_id(arrival.saga, None)

    plant.replace(StartProcessor, "_definition_id", newest)


@planted_bug("P1")
def drop_partition_with_pending_start(plant: BugPatcher) -> None:
    """The functions of the database that say so are in the model of it."""

    def month_needed(tx: memory_database.MemoryTransaction, month: str, cutoff: datetime) -> bool:
        runs_of = [row for key, row in tx.scan("run") if partition_model.month_of_run(key) == month]
        ended = [row["finished_at"] for row in runs_of]
        return any(at is None or at > cutoff for at in ended)

    def is_left_over(tx: memory_database.MemoryTransaction, row: memory_database.Row) -> bool:
        return tx.get("run", row["run_id"]) is None

    plant.replace(partition_model, "month_needed", month_needed)
    plant.replace(partition_model, "is_orphaned", is_left_over)


@planted_bug("P1")
def release_keys_of_unfinished_runs(plant: BugPatcher) -> None:
    """A refused start gives back its key, whoever has begun with it meanwhile."""
    consider = StartProcessor._resolve_key

    async def releasing(
        self: StartProcessor, begun: PreparedStart, holder: KeyOwner | None
    ) -> None:
        await consider(self, begun, holder)
        if holder is not None and holder.run_id != begun.work_item.run_id:
            key = starts.start_trigger(begun.work_item).key
            assert key is not None
            model = cast("memory_database.MemoryTransaction", self._tx)
            await model.lock("run_key", (begun.work_item.saga, key))
            model.delete("run_key", (begun.work_item.saga, key))

    plant.replace(StartProcessor, "_resolve_key", releasing)


@planted_bug("P1")
def record_no_verdict_of_refused_request(plant: BugPatcher) -> None:
    refuse = ChangeSet.refuse

    def silent(
        self: ChangeSet,
        arrival: WorkItem,
        outcome: AnswerOutcome,
        sentence: str,
        run_id: str | None = None,
    ) -> None:
        refuse(self, replace(arrival, audit_id=None), outcome, sentence, run_id)

    plant.replace(ChangeSet, "refuse", silent)


@planted_bug("P1")
def lose_audit_id_of_deferred_request(plant: BugPatcher) -> None:
    """It is decided later, and its operator is never told."""
    item = flush._pending_request

    def forgetting(arrival: WorkItem, ledger: ChangeSet, delay: timedelta) -> NewRequest:
        return replace(item(arrival, ledger, delay), audit_id=None)

    plant.replace(flush, "_pending_request", forgetting)


@planted_bug("P7")
def misreport_load_as_bug(plant: BugPatcher) -> None:
    """Recorded requests whose runs are together beyond `max_batch_bytes` are a fault of ours."""

    async def waiting(self: Duties) -> bool:
        try:
            return await self._process_request_batches()
        except batch_runner.DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - as in the code it replaces
            self._emit(InternalErrorCaught(operation="waiting", problem=describe_error(error)))
            return await self._process_oldest_request()

    plant.replace(Duties, "_process_pending_requests", waiting)


# store


@planted_bug("P5")
def omit_journal_event(plant: BugPatcher) -> None:
    append = journal.append

    async def forgetful(tx: SqlAlchemyTransaction, entries: Sequence[NewEvent]) -> None:
        kept = [each for each in entries if type(each.event).__name__ != "RunCompensating"]
        await append(tx, kept)

    plant.replace(journal, "append", forgetful)


@planted_bug("P1")
def skip_incident_row(plant: BugPatcher) -> None:
    async def record(tx: SqlAlchemyTransaction, events: Sequence[tuple[str, Event]]) -> None:
        del tx, events

    plant.replace(incidents, "record", record)


@planted_bug("P1")
def reserve_taken_keys(plant: BugPatcher) -> None:
    async def everyone(
        tx: SqlAlchemyTransaction,
        wanted: Sequence[KeyRequest],
        sealing: PayloadEncryption = NO_ENCRYPTION,
    ) -> list[KeyOwner | None]:
        del tx, sealing
        return [KeyOwner(each.run_id, same_input=True) for each in wanted]

    plant.replace(business_keys, "try_reserve", everyone)


# core


@planted_bug("P3")
def compensate_in_forward_order(plant: BugPatcher) -> None:
    def forward(turn: DecisionBuilder) -> Iterator[str]:
        for name in turn.saga.predecessors:
            pending = turn.step(name).compensation.status is StepStatus.PENDING
            waits = any(_needs_compensation(turn, earlier) for earlier in turn.saga.ancestors[name])
            if pending and _needs_compensation(turn, name) and not waits:
                yield name

    plant.replace(progress, "_steps_to_compensate", forward)


@planted_bug("P3")
def compensate_everything_at_once(plant: BugPatcher) -> None:
    def at_once(turn: DecisionBuilder) -> Iterator[str]:
        for name in turn.saga.predecessors:
            if turn.step(name).compensation.status is StepStatus.PENDING and _needs_compensation(
                turn, name
            ):
                yield name

    plant.replace(progress, "_steps_to_compensate", at_once)


@planted_bug("P3")
def ignore_a_late_success(plant: BugPatcher) -> None:
    def late(turn: DecisionBuilder, reply: ReplyReceived) -> str | None:
        del turn, reply
        return LATE

    plant.replace(replies, "_on_late_success", late)


@planted_bug("P3")
def treat_timeout_as_no_effect(plant: BugPatcher) -> None:
    def done(step: StepRun) -> bool:
        return step.action.status is StepStatus.SUCCEEDED

    plant.replace(StepRun, "may_have_effect", property(done))


@planted_bug("P3")
def treat_sent_compensation_as_done(plant: BugPatcher) -> None:
    def hopeful(step: StepRun) -> bool:
        return step.compensation.attempts > 0

    plant.replace(StepRun, "compensation_done", property(hopeful))


@planted_bug("P3", "P2", "P4")
def treat_rejected_compensation_as_done(plant: BugPatcher) -> None:
    replied = replies.on_reply

    def hopeful(turn: DecisionBuilder, reply: ReplyReceived) -> str | None:
        if reply.direction is Direction.COMPENSATION and reply.outcome is Outcome.REJECTED:
            reply = replace(reply, outcome=Outcome.SUCCEEDED)
        return replied(turn, reply)

    plant.replace(decide, "replied", hopeful)


@planted_bug("P4")
def give_each_attempt_its_own_key(plant: BugPatcher) -> None:
    ordered = effects.effects

    def unstable(run: Run, events: Sequence[Event]) -> Iterator[SendCommand]:
        for send in ordered(run, events):
            yield replace(send, idempotency_key=f"{send.idempotency_key}/{send.attempt}")

    plant.replace(change_set, "effects", unstable)


@planted_bug("P1")
def never_retry(plant: BugPatcher) -> None:
    due = decide._is_due

    def lazy(turn: DecisionBuilder, place: tuple[str, Direction], status: StepStatus) -> bool:
        return status is StepStatus.IN_FLIGHT and due(turn, place, status)

    plant.replace(decide, "_is_due", lazy)


@planted_bug("P2", "P3")
def complete_when_last_step_succeeds(plant: BugPatcher) -> None:
    """The other branches of the graph may still be under way."""
    advance = progress.advance

    def early(turn: DecisionBuilder) -> None:
        last = list(turn.saga.steps)[-1]
        running = turn.run.status is Status.RUNNING
        if running and turn.step(last).action.status is StepStatus.SUCCEEDED:
            turn.record(RunCompleted(turn.now))
        advance(turn)

    plant.replace(decide, "advance", early)


# participant


@planted_bug("P4")
def remove_barrier(plant: BugPatcher) -> None:
    async def enter(
        tx: SqlAlchemyTransaction, command: Command, *, undoes: bool
    ) -> CommandResult | None:
        del tx, command, undoes
        return None

    async def leave(tx: SqlAlchemyTransaction, command: Command, answer: CommandResult) -> bool:
        del tx, command, answer
        return True

    plant.replace(barrier, "claim_command", enter)
    plant.replace(barrier, "record_result", leave)


@planted_bug("P4")
def compensate_without_effect(plant: BugPatcher) -> None:
    enter = barrier.claim_command

    async def careless(
        tx: AsyncConnection, command: Command, *, undoes: bool
    ) -> CommandResult | None:
        del undoes
        return await enter(tx, command, compensates_local_action=False)

    plant.replace(barrier, "claim_command", careless)


@planted_bug("P3", "P4")
def omit_tombstone(plant: BugPatcher) -> None:
    enter = barrier.claim_command

    async def without(
        tx: AsyncConnection, command: Command, *, undoes: bool
    ) -> CommandResult | None:
        answer = await enter(tx, command, compensates_local_action=undoes)
        if undoes and answer is barrier.EMPTY_COMPENSATION_RESULT:
            model = cast("memory_database.MemoryTransaction", tx)
            model.delete("barrier", (command.run_id, command.step, Direction.ACTION.value))
        return answer

    plant.replace(barrier, "claim_command", without)


@planted_bug("P3", "P4")
def record_the_barrier_in_a_transaction_of_its_own(plant: BugPatcher) -> None:
    async def once(
        self: Executor, handler: Handler, course: ExecutionState, tx: AsyncConnection
    ) -> CommandResult:
        assert self._database is not None
        async with self._database.transaction() as other:
            answer = await self._call_handler(handler, course, other)
            if answer.outcome is not Outcome.SUCCEEDED:
                raise HandlerRolledBack(answer)
        await barrier.record_result(tx, course.received.command, answer)
        return answer

    plant.replace(Executor, "_execute_claimed", once)


@planted_bug("P2", "P3", "P4", "P6")
def treat_in_progress_command_as_done(plant: BugPatcher) -> None:
    perform = Executor.execute

    async def hasty(self: Executor, received: ReceivedCommand) -> CommandResult:
        try:
            return await perform(self, received)
        except barrier.CommandInProgress:
            return CommandResult(Outcome.SUCCEEDED, b"null")

    plant.replace(Executor, "execute", hasty)


@planted_bug("P6")
def acknowledge_a_command_before_its_reply_is_confirmed(plant: BugPatcher) -> None:
    async def publish(self: ReplyPublisher, due: list[_UnconfirmedReply]) -> None:
        await self._consumer.acknowledge(held.delivery for held in due)
        await self._publisher.publish([held.message for held in due])
        self._unconfirmed = [held for held in self._unconfirmed if held not in due]

    plant.replace(ReplyPublisher, "_publish", publish)


@planted_bug("P4", "P6")
def reply_before_the_commit(plant: BugPatcher) -> None:
    guarded = Executor._execute_with_timeout

    async def hasty(self: Executor, handler: Handler, received: ReceivedCommand) -> CommandResult:
        loop = asyncio.get_running_loop()
        working = loop.create_task(guarded(self, handler, received))
        done, _ = await asyncio.wait([working], timeout=0.001)
        if done:
            return working.result()
        return CommandResult(Outcome.SUCCEEDED, b"1")

    plant.replace(Executor, "_execute_with_timeout", hasty)
