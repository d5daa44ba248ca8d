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
from saga_engine.decider.decision import Turn
from saga_engine.decider.effects import Send
from saga_engine.decider.events import Event, RunCompleted
from saga_engine.decider.progress import _owed
from saga_engine.decider.replies import LATE
from saga_engine.decider.run import Run, StepRun, StepStatus
from saga_engine.decider.triggers import Replied
from saga_engine.errors import StoreUnavailable
from saga_engine.participant import barrier
from saga_engine.participant.barrier import Answer
from saga_engine.participant.database import Undone
from saga_engine.participant.executor import Course, Performer
from saga_engine.participant.handler import Handler
from saga_engine.participant.reply_publisher import Replies, _Held
from saga_engine.payload.encryption import PLAIN, Sealing
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.command import Command, ReceivedCommand
from saga_engine.protocol.message import Delivery, Message, Published
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import business_keys, incidents, journal, outbox, pending_requests, runs
from saga_engine.store.business_keys import KeyHeld, KeyWanted
from saga_engine.store.database import Transaction
from saga_engine.store.journal import Entry
from saga_engine.store.outbox import LeftBehind, Outgoing
from saga_engine.store.pending_requests import Inboxed, Item, WaitingStart
from saga_engine.store.runs import StoredRun
from saga_engine.telemetry.events import FaultFound, described
from saga_engine.vocabulary import Direction, Outcome, Status
from saga_engine.worker import (
    batch_runner,
    batch_transaction,
    change_set,
    decode_pending,
    flush,
    starts,
)
from saga_engine.worker.batch_runner import Turnover, Work
from saga_engine.worker.batch_transaction import Batch
from saga_engine.worker.change_set import Ledger
from saga_engine.worker.decode import read_apart
from saga_engine.worker.duties import Duties
from saga_engine.worker.emit import account
from saga_engine.worker.loops import Shift
from saga_engine.worker.outbox_publisher import Outbound
from saga_engine.worker.starts import Begun, Starts
from saga_engine.worker.work_item import Arrival, Intake, Letter
from simulation import memory_database, partition_model
from tests.simulation.planting import Planting

Plant = Callable[[Planting], None]

BUGS: dict[str, tuple[Plant, tuple[str, ...]]] = {}


def bug(*promises: str) -> Callable[[Plant], Plant]:
    """Declare a bug: a function that plants it, and the promises of which it breaks one."""

    def declare(plant: Plant) -> Plant:
        BUGS[plant.__name__] = (plant, promises)
        return plant

    return declare


# worker


@bug("P6")
def acknowledge_before_the_commit(plant: Planting) -> None:
    async def deal_with(self: Shift, deliveries: Sequence[Delivery]) -> None:
        await self._consumer.settle(deliveries)
        keys = self._outbound.keys.accepted
        intake = await read_apart(deliveries, keys, self._settings, self._sealing)
        await self._turnover.take(intake)
        self._slots.release()

    plant.replace(Shift, "_deal_with", deal_with)


@bug("P6")
def publish_before_the_commit(plant: Planting) -> None:
    async def once(self: Turnover, work: Work) -> int:
        with self.admission.transaction() as entering:
            async with self._database.transaction() as tx:
                found = Ledger(await runs.clock(tx), entering)
                batch = Batch(tx, self._catalogue, self.admission, found, self._settings)
                number = await work(tx, batch)
                await flush.write(tx, found, self._settings)
                await outbox.delete(tx, self._outbound.confirmed)
                await self._outbound.send(found.outcome)
        account(self._tell, found)
        return number or 0

    plant.replace(Turnover, "once", once)


@bug("P6")
def take_a_failed_commit_for_done(plant: Planting) -> None:
    async def take(self: Turnover, intake: Intake, failures: int = 0) -> list[Delivery]:
        del failures
        with suppress(StoreUnavailable):
            await self.once(partial(batch_runner._taken, intake, patient=True))
        return []

    plant.replace(Turnover, "take", take)


@bug("P6")
def forget_a_command_before_its_confirm(plant: Planting) -> None:
    commands = Outbound.commands

    async def forgetting(
        self: Outbound,
        rows: Sequence[Outgoing],
        told: Sequence[Message] = (),
        *,
        again: bool = False,
    ) -> Sequence[Published]:
        self.confirmed.extend(row.id for row in rows)
        return await commands(self, rows, told, again=again)

    plant.replace(Outbound, "commands", forgetting)


@bug("P6", "P7")
def acknowledge_rubbish_and_keep_nothing(plant: Planting) -> None:
    def nothing(self: Ledger, letter: Letter) -> None:
        del self, letter

    plant.replace(Ledger, "put_aside", nothing)


@bug("P1")
def never_sweep(plant: Planting) -> None:
    async def nothing(
        tx: Transaction, age: timedelta, limit: int, *, most: int = outbox.ALL
    ) -> LeftBehind:
        del tx, age, limit, most
        return LeftBehind([], 0)

    plant.replace(outbox, "claim_left_behind", nothing)


@bug("P1")
def lose_timers_in_a_crash(plant: Planting) -> None:
    """They are kept in the memory of the worker that sent the command, and nowhere else."""

    def never(saga: Saga, run: Run) -> datetime | None:
        del saga, run
        return None

    plant.replace(batch_transaction, "wake_at", never)
    plant.replace(starts, "wake_at", never)


@bug("P1")
def spend_a_wake_up_without_the_next(plant: Planting) -> None:
    apply = Batch._apply

    def forgetting(
        self: Batch, saga: Saga, before: StoredRun, decision: Decision, arrival: Arrival | None
    ) -> Run:
        run = apply(self, saga, before, decision, arrival)
        if arrival is None:
            stored = self._ledger.stored[run.run_id]
            self._ledger.stored[run.run_id] = replace(stored, wake_at=None)
        return run

    plant.replace(Batch, "_apply", forgetting)


@bug("P6")
def know_nothing_of_starts_that_wait(plant: Planting) -> None:
    async def none(
        tx: Transaction, run_ids: Collection[str], held: int = 0
    ) -> dict[str, WaitingStart]:
        del tx, run_ids, held
        return {}

    plant.replace(pending_requests, "starts_of", none)


@bug("P5", "P7")
def decide_without_the_lock(plant: Planting) -> None:
    plant.replace(runs, "lock", runs.look)


@bug("P7")
def decode_all_recorded_rows_together(plant: Planting) -> None:
    """One body that is not JSON fails the batch, and the batch is all that anybody recorded."""
    read_each = decode_pending.read

    def together(items: Iterable[Inboxed], settings: Settings) -> Intake:
        rows = list(items)
        orjson.loads(f"[{','.join(row.body for row in rows)}]")
        return read_each(rows, settings)

    plant.replace(decode_pending, "read", together)


@bug("P1")
def choose_the_version_again_at_its_turn(plant: Planting) -> None:
    """A start that names no version is kept as it came, not as it was accepted."""

    def queue(self: Ledger, arrival: Arrival, run: Run) -> None:
        self.hold(replace(arrival, answer_to=None))
        status = change_set.status_of(run)
        self.answer(arrival.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status)

    plant.replace(Ledger, "queue", queue)


@bug("P1")
def begin_the_newest_version_that_is_here(plant: Planting) -> None:
    """A worker with a newer version begins with it what was accepted for an older one."""

    def newest(self: Starts, arrival: Arrival) -> int | None:
        return self._catalogue.startable(arrival.saga, None)

    plant.replace(Starts, "_startable", newest)


@bug("P1")
def drop_a_month_although_a_start_waits(plant: Planting) -> None:
    """The functions of the database that say so are in the model of it."""

    def month_needed(tx: memory_database.Transaction, month: str, cutoff: datetime) -> bool:
        runs_of = [row for key, row in tx.every("run") if partition_model.month_of(key) == month]
        ended = [row["finished_at"] for row in runs_of]
        return any(at is None or at > cutoff for at in ended)

    def is_left_over(tx: memory_database.Transaction, row: memory_database.Row) -> bool:
        return tx.get("run", row["run_id"]) is None

    plant.replace(partition_model, "month_needed", month_needed)
    plant.replace(partition_model, "is_left_over", is_left_over)


@bug("P1")
def release_keys_of_runs_that_are_under_way(plant: Planting) -> None:
    """A refused start gives back its key, whoever has begun with it meanwhile."""
    consider = Starts._consider

    async def releasing(self: Starts, begun: Begun, holder: KeyHeld | None) -> None:
        await consider(self, begun, holder)
        if holder is not None and holder.run_id != begun.arrival.run_id:
            key = starts.start_of(begun.arrival).key
            assert key is not None
            model = cast("memory_database.Transaction", self._tx)
            await model.lock("run_key", (begun.arrival.saga, key))
            model.delete("run_key", (begun.arrival.saga, key))

    plant.replace(Starts, "_consider", releasing)


@bug("P1")
def settle_no_act_that_is_refused(plant: Planting) -> None:
    refuse = Ledger.refuse

    def silent(
        self: Ledger,
        arrival: Arrival,
        outcome: AnswerOutcome,
        sentence: str,
        run_id: str | None = None,
    ) -> None:
        refuse(self, replace(arrival, audit_id=None), outcome, sentence, run_id)

    plant.replace(Ledger, "refuse", silent)


@bug("P1")
def forget_the_act_of_a_request_that_is_kept(plant: Planting) -> None:
    """It is decided later, and its operator is never told."""
    item = flush._item

    def forgetting(arrival: Arrival, ledger: Ledger, delay: timedelta) -> Item:
        return replace(item(arrival, ledger, delay), audit_id=None)

    plant.replace(flush, "_item", forgetting)


@bug("P7")
def take_too_much_for_a_bug(plant: Planting) -> None:
    """Recorded requests whose runs are together beyond `batch_bytes` are a fault of ours."""

    async def waiting(self: Duties) -> bool:
        try:
            return await self._take_all_or_what_is_free()
        except batch_runner.AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - as in the code it replaces
            self._tell(FaultFound(operation="waiting", problem=described(error)))
            return await self._take_one_recorded()

    plant.replace(Duties, "_take_what_was_recorded", waiting)


# store


@bug("P5")
def leave_an_event_out_of_the_journal(plant: Planting) -> None:
    append = journal.append

    async def forgetful(tx: Transaction, entries: Sequence[Entry]) -> None:
        kept = [each for each in entries if type(each.event).__name__ != "RunCompensating"]
        await append(tx, kept)

    plant.replace(journal, "append", forgetful)


@bug("P1")
def open_an_incident_that_nobody_can_find(plant: Planting) -> None:
    async def record(tx: Transaction, events: Sequence[tuple[str, Event]]) -> None:
        del tx, events

    plant.replace(incidents, "record", record)


@bug("P1")
def give_a_key_to_everyone_who_asks(plant: Planting) -> None:
    async def everyone(
        tx: Transaction, wanted: Sequence[KeyWanted], sealing: Sealing = PLAIN
    ) -> list[KeyHeld | None]:
        del tx, sealing
        return [KeyHeld(each.run_id, same_input=True) for each in wanted]

    plant.replace(business_keys, "try_reserve", everyone)


# core


@bug("P3")
def compensate_in_forward_order(plant: Planting) -> None:
    def forward(turn: Turn) -> Iterator[str]:
        for name in turn.saga.after:
            pending = turn.step(name).compensation.status is StepStatus.PENDING
            waits = any(_owed(turn, earlier) for earlier in turn.saga.ancestors[name])
            if pending and _owed(turn, name) and not waits:
                yield name

    plant.replace(progress, "_due_to_be_undone", forward)


@bug("P3")
def compensate_everything_at_once(plant: Planting) -> None:
    def at_once(turn: Turn) -> Iterator[str]:
        for name in turn.saga.after:
            if turn.step(name).compensation.status is StepStatus.PENDING and _owed(turn, name):
                yield name

    plant.replace(progress, "_due_to_be_undone", at_once)


@bug("P3")
def ignore_a_late_success(plant: Planting) -> None:
    def late(turn: Turn, reply: Replied) -> str | None:
        del turn, reply
        return LATE

    plant.replace(replies, "_after_giving_up", late)


@bug("P3")
def take_a_timeout_for_nothing_done(plant: Planting) -> None:
    def done(step: StepRun) -> bool:
        return step.action.status is StepStatus.SUCCEEDED

    plant.replace(StepRun, "may_have_effect", property(done))


@bug("P3")
def take_a_compensation_for_done_when_it_is_sent(plant: Planting) -> None:
    def hopeful(step: StepRun) -> bool:
        return step.compensation.attempts > 0

    plant.replace(StepRun, "undone", property(hopeful))


@bug("P3", "P2", "P4")
def take_a_rejected_compensation_for_done(plant: Planting) -> None:
    replied = replies.replied

    def hopeful(turn: Turn, reply: Replied) -> str | None:
        if reply.direction is Direction.COMPENSATION and reply.outcome is Outcome.REJECTED:
            reply = replace(reply, outcome=Outcome.SUCCEEDED)
        return replied(turn, reply)

    plant.replace(decide, "replied", hopeful)


@bug("P4")
def give_every_attempt_a_key_of_its_own(plant: Planting) -> None:
    ordered = effects.effects

    def unstable(run: Run, events: Sequence[Event]) -> Iterator[Send]:
        for send in ordered(run, events):
            yield replace(send, idempotency_key=f"{send.idempotency_key}/{send.attempt}")

    plant.replace(change_set, "effects", unstable)


@bug("P1")
def never_try_again_what_waits(plant: Planting) -> None:
    due = decide._is_due

    def lazy(turn: Turn, place: tuple[str, Direction], status: StepStatus) -> bool:
        return status is StepStatus.IN_FLIGHT and due(turn, place, status)

    plant.replace(decide, "_is_due", lazy)


@bug("P2", "P3")
def complete_when_the_last_step_is_done(plant: Planting) -> None:
    """The other branches of the graph may still be under way."""
    advance = progress.advance

    def early(turn: Turn) -> None:
        last = list(turn.saga.steps)[-1]
        running = turn.run.status is Status.RUNNING
        if running and turn.step(last).action.status is StepStatus.SUCCEEDED:
            turn.record(RunCompleted(turn.now))
        advance(turn)

    plant.replace(decide, "advance", early)


# participant


@bug("P4")
def have_no_barrier(plant: Planting) -> None:
    async def enter(tx: Transaction, command: Command, *, undoes: bool) -> Answer | None:
        del tx, command, undoes
        return None

    async def leave(tx: Transaction, command: Command, answer: Answer) -> bool:
        del tx, command, answer
        return True

    plant.replace(barrier, "enter", enter)
    plant.replace(barrier, "leave", leave)


@bug("P4")
def undo_what_never_happened(plant: Planting) -> None:
    enter = barrier.enter

    async def careless(tx: AsyncConnection, command: Command, *, undoes: bool) -> Answer | None:
        del undoes
        return await enter(tx, command, undoes=False)

    plant.replace(barrier, "enter", careless)


@bug("P3", "P4")
def leave_no_tombstone(plant: Planting) -> None:
    enter = barrier.enter

    async def without(tx: AsyncConnection, command: Command, *, undoes: bool) -> Answer | None:
        answer = await enter(tx, command, undoes=undoes)
        if undoes and answer is barrier.EMPTY:
            model = cast("memory_database.Transaction", tx)
            model.delete("barrier", (command.run_id, command.step, Direction.ACTION.value))
        return answer

    plant.replace(barrier, "enter", without)


@bug("P3", "P4")
def record_the_barrier_in_a_transaction_of_its_own(plant: Planting) -> None:
    async def once(
        self: Performer, handler: Handler, course: Course, tx: AsyncConnection
    ) -> Answer:
        assert self._database is not None
        async with self._database.transaction() as other:
            answer = await self._called(handler, course, other)
            if answer.outcome is not Outcome.SUCCEEDED:
                raise Undone(answer)
        await barrier.leave(tx, course.received.command, answer)
        return answer

    plant.replace(Performer, "_once", once)


@bug("P2", "P3", "P4", "P6")
def take_a_command_in_hand_for_done(plant: Planting) -> None:
    perform = Performer.perform

    async def hasty(self: Performer, received: ReceivedCommand) -> Answer:
        try:
            return await perform(self, received)
        except barrier.InHand:
            return Answer(Outcome.SUCCEEDED, b"null")

    plant.replace(Performer, "perform", hasty)


@bug("P6")
def acknowledge_a_command_before_its_reply_is_confirmed(plant: Planting) -> None:
    async def publish(self: Replies, due: list[_Held]) -> None:
        await self._consumer.settle(held.delivery for held in due)
        await self._publisher.publish([held.message for held in due])
        self._held = [held for held in self._held if held not in due]

    plant.replace(Replies, "_publish", publish)


@bug("P4", "P6")
def reply_before_the_commit(plant: Planting) -> None:
    guarded = Performer._guarded

    async def hasty(self: Performer, handler: Handler, received: ReceivedCommand) -> Answer:
        loop = asyncio.get_running_loop()
        working = loop.create_task(guarded(self, handler, received))
        done, _ = await asyncio.wait([working], timeout=0.001)
        if done:
            return working.result()
        return Answer(Outcome.SUCCEEDED, b"1")

    plant.replace(Performer, "_guarded", hasty)
