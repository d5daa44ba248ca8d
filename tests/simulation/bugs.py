"""
Bugs that somebody could write, each a small patch of the real code and the promise it breaks.

Each is planted for the time of a test, which must see the simulation find it.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace

from saga_engine.errors import StoreUnavailable
from saga_engine.participant import barrier
from saga_engine.participant.barrier import Answer
from saga_engine.participant.performer import Performer
from saga_engine.participant.replies import Replies
from saga_engine.saga import course, decide, reply
from saga_engine.saga.course import _owed
from saga_engine.saga.event import RunCompleted
from saga_engine.saga.run import StepRun, StepStatus
from saga_engine.saga.vocabulary import Direction, Outcome, Status
from saga_engine.store import inbox, incidents, journal, keys, outbox, runs
from saga_engine.worker import batch, ledger, starts, turnover, writing
from saga_engine.worker.account import account
from saga_engine.worker.batch import Batch
from saga_engine.worker.intake import read
from saga_engine.worker.ledger import Ledger
from saga_engine.worker.outbound import Outbound
from saga_engine.worker.shift import Shift
from saga_engine.worker.turnover import Turnover

BUGS = {}


def bug(*promises):
    """Declare a bug: a function that plants it, and the promises of which it breaks one."""

    def declare(plant):
        BUGS[plant.__name__] = (plant, promises)
        return plant

    return declare


# worker


@bug("P6")
def acknowledge_before_the_commit(plant):
    async def deal_with(self, deliveries):
        await self._consumer.settle(deliveries)
        await self._turnover.take(read(deliveries, self._key, self._settings))
        self._slots.release()

    plant.setattr(Shift, "_deal_with", deal_with)


@bug("P6")
def publish_before_the_commit(plant):
    async def once(self, work):
        with self.admission.transaction() as entering:
            async with self._database.transaction() as tx:
                found = Ledger(await runs.clock(tx), entering)
                batch = Batch(tx, self._catalogue, self.admission, found, self._settings)
                number = await work(tx, batch)
                await writing.write(tx, found, self._settings)
                await outbox.delete(tx, self._outbound.confirmed)
                await self._outbound.send(found.outcome)
        account(self._tell, found)
        return number or 0

    plant.setattr(Turnover, "once", once)


@bug("P6")
def take_a_failed_commit_for_done(plant):
    async def take(self, intake):
        with suppress(StoreUnavailable):
            await self.once(lambda _, batch: turnover._taken(batch, intake))
        return []

    plant.setattr(Turnover, "take", take)


@bug("P6")
def forget_a_command_before_its_confirm(plant):
    commands = Outbound.commands

    async def forgetting(self, rows, told=()):
        self.confirmed.extend(row.id for row in rows)
        return await commands(self, rows, told)

    plant.setattr(Outbound, "commands", forgetting)


@bug("P6", "P7")
def acknowledge_rubbish_and_keep_nothing(plant):
    plant.setattr(Ledger, "put_aside", lambda *_: None)


@bug("P1")
def never_sweep(plant):
    async def nothing(*_):
        return []

    plant.setattr(outbox, "claim_left_behind", nothing)


@bug("P1")
def lose_timers_in_a_crash(plant):
    """They are kept in the memory of the worker that sent the command, and nowhere else."""
    plant.setattr(batch, "wake_at", lambda *_: None)
    plant.setattr(starts, "wake_at", lambda *_: None)


@bug("P1")
def spend_a_wake_up_without_the_next(plant):
    apply = Batch._apply

    def forgetting(self, saga, before, decision, arrival):
        run = apply(self, saga, before, decision, arrival)
        if arrival is None:
            stored = self._ledger.stored[run.run_id]
            self._ledger.stored[run.run_id] = replace(stored, wake_at=None)
        return run

    plant.setattr(Batch, "_apply", forgetting)


@bug("P6")
def know_nothing_of_starts_that_wait(plant):
    async def none(*_):
        return {}

    plant.setattr(inbox, "starts_of", none)


@bug("P5", "P7")
def decide_without_the_lock(plant):
    plant.setattr(runs, "lock", runs.look)


# store


@bug("P5")
def leave_an_event_out_of_the_journal(plant):
    append = journal.append

    async def forgetful(tx, entries):
        kept = [each for each in entries if type(each.event).__name__ != "RunCompensating"]
        await append(tx, kept)

    plant.setattr(journal, "append", forgetful)


@bug("P1")
def open_an_incident_that_nobody_can_find(plant):
    async def record(*_):
        pass

    plant.setattr(incidents, "record", record)


@bug("P1")
def give_a_key_to_everyone_who_asks(plant):
    async def everyone(_tx, wanted, _sealing):
        return [keys.KeyHeld(each.run_id, True) for each in wanted]

    plant.setattr(keys, "try_reserve", everyone)


# core


@bug("P3")
def compensate_in_forward_order(plant):
    def forward(turn):
        for name in turn.saga.after:
            pending = turn.step(name).compensation.status is StepStatus.PENDING
            waits = any(_owed(turn, earlier) for earlier in turn.saga.ancestors[name])
            if pending and _owed(turn, name) and not waits:
                yield name

    plant.setattr(course, "_due_to_be_undone", forward)


@bug("P3")
def compensate_everything_at_once(plant):
    def at_once(turn):
        for name in turn.saga.after:
            if turn.step(name).compensation.status is StepStatus.PENDING and _owed(turn, name):
                yield name

    plant.setattr(course, "_due_to_be_undone", at_once)


@bug("P3")
def ignore_a_late_success(plant):
    plant.setattr(reply, "_after_giving_up", lambda *_: reply.LATE)


@bug("P3")
def take_a_timeout_for_nothing_done(plant):
    done = property(lambda step: step.action.status is StepStatus.SUCCEEDED)
    plant.setattr(StepRun, "may_have_effect", done)


@bug("P3")
def take_a_compensation_for_done_when_it_is_sent(plant):
    hopeful = property(lambda step: step.compensation.attempts > 0)
    plant.setattr(StepRun, "undone", hopeful)


@bug("P3", "P2", "P4")
def take_a_rejected_compensation_for_done(plant):
    replied = decide.replied

    def hopeful(turn, message):
        if message.direction is Direction.COMPENSATION and message.outcome is Outcome.REJECTED:
            message = replace(message, outcome=Outcome.SUCCEEDED)
        return replied(turn, message)

    plant.setattr(decide, "replied", hopeful)


@bug("P4")
def give_every_attempt_a_key_of_its_own(plant):
    effects = ledger.effects

    def unstable(run, events):
        for send in effects(run, events):
            yield replace(send, idempotency_key=f"{send.idempotency_key}/{send.attempt}")

    plant.setattr(ledger, "effects", unstable)


@bug("P1")
def never_try_again_what_waits(plant):
    due = decide._is_due

    def lazy(turn, place, status):
        return status is StepStatus.IN_FLIGHT and due(turn, place, status)

    plant.setattr(decide, "_is_due", lazy)


@bug("P2", "P3")
def complete_when_the_last_step_is_done(plant):
    """The other branches of the graph may still be under way."""
    advance = decide.advance

    def early(turn):
        last = list(turn.saga.steps)[-1]
        running = turn.run.status is Status.RUNNING
        if running and turn.step(last).action.status is StepStatus.SUCCEEDED:
            turn.record(RunCompleted(turn.now))
        advance(turn)

    plant.setattr(decide, "advance", early)


# participant


@bug("P4")
def have_no_barrier(plant):
    async def enter(*_, **__):
        return None

    plant.setattr(barrier, "enter", enter)


@bug("P4")
def undo_what_never_happened(plant):
    enter = barrier.enter

    async def careless(tx, command, *, undoes):
        del undoes
        return await enter(tx, command, undoes=False)

    plant.setattr(barrier, "enter", careless)


@bug("P3", "P4")
def leave_no_tombstone(plant):
    enter = barrier.enter

    async def without(tx, command, *, undoes):
        answer = await enter(tx, command, undoes=undoes)
        if undoes and answer is barrier.EMPTY:
            tx.delete("barrier", (command.run_id, command.step, Direction.ACTION.value))
        return answer

    plant.setattr(barrier, "enter", without)


@bug("P3", "P4")
def record_the_barrier_in_a_transaction_of_its_own(plant):
    async def once(self, handler, command, tx):
        async with self._database.transaction() as other:
            answer = await self._done(handler, command, other)
        await barrier.leave(tx, command, answer)
        return answer

    plant.setattr(Performer, "_once", once)


@bug("P2", "P3", "P4", "P6")
def take_a_command_in_hand_for_done(plant):
    perform = Performer.perform

    async def hasty(self, received):
        try:
            return await perform(self, received)
        except barrier.InHand:
            return Answer(Outcome.SUCCEEDED, b"null")

    plant.setattr(Performer, "perform", hasty)


@bug("P6")
def acknowledge_a_command_before_its_reply_is_confirmed(plant):
    async def publish(self, due):
        await self._consumer.settle(held.delivery for held in due)
        await self._publisher.publish([held.message for held in due])
        self._held = [held for held in self._held if held not in due]

    plant.setattr(Replies, "_publish", publish)


@bug("P4", "P6")
def reply_before_the_commit(plant):
    guarded = Performer._guarded

    async def hasty(self, handler, command):
        loop = asyncio.get_running_loop()
        working = loop.create_task(guarded(self, handler, command))
        done, _ = await asyncio.wait([working], timeout=0.001)
        if done:
            return working.result()
        return Answer(Outcome.SUCCEEDED, b"1")

    plant.setattr(Performer, "_guarded", hasty)
