"""
Inside the transaction: lock the runs, decide every arrival. `writing` writes what follows.

A batch takes whatever has arrived, groups it by run and locks the rows in id order, so that any
number of workers can run batches on the same runs. One arrival alone takes the same way. Decisions
are made in memory; the store is written in a handful of set-based statements whatever the size.

A run whose definition is not here is not decided: its arrival is recorded for a worker that has it.
What comes from a user who may not send it becomes a dead letter and reaches no run.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from saga_engine.decider.decide import Decision, decide
from saga_engine.decider.effects import wake_at
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import Cancel, Garbled, Replied, Start, Trigger, Woken
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import business_keys, crash_suspects, pending_requests, runs
from saga_engine.store.crash_suspects import Suspect
from saga_engine.store.database import Transaction
from saga_engine.store.pending_requests import WaitingStart
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import Status
from saga_engine.worker.admission import Admission
from saga_engine.worker.authorization import stranger
from saga_engine.worker.change_set import Ledger
from saga_engine.worker.crash_suspects import Suspected, Suspicion
from saga_engine.worker.registry import Catalogue
from saga_engine.worker.starts import Starts
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import Arrival, Intake, Question, Unread

FAULT = "The engine could not handle it; see its log."

FAULT_PAUSE = timedelta(minutes=5)
"""
How long a run rests whose timers hit a bug of ours, so that it does not hit it without end: longer
than `in_flight_horizon`, or it would take the place of one that can go on.
"""


class Batch:
    """One transaction's work: what it takes is decided at once, and stands in the ledger."""

    def __init__(
        self,
        tx: Transaction,
        catalogue: Catalogue,
        admission: Admission,
        ledger: Ledger,
        settings: Settings,
    ) -> None:
        self._tx = tx
        self._catalogue = catalogue
        self._admission = admission
        self._ledger = ledger
        self._settings = settings
        self._waiting: dict[str, WaitingStart] = {}
        self._held: set[str] = set()

    async def take(self, intake: Intake, *, patient: bool) -> None:
        """
        Decide what has arrived.

        Args:
            patient: whether to wait for a run that somebody else holds; otherwise what is for it is
                put by, and it holds up nothing.
        """
        await self._examine(intake)
        ledger = self._ledger
        for letter in intake.letters:
            ledger.put_aside(letter)
        for unread in intake.unread:
            await self._refuse_unread(unread)
        starts = [
            each
            for each in intake.arrivals
            if isinstance(each.trigger, Start) and not self._turned_away(each, each.saga)
        ]
        others = [each for each in intake.arrivals if not isinstance(each.trigger, Start)]
        if starts:
            await Starts(
                *(self._tx, self._catalogue, self._admission, ledger), self._settings
            ).begin(starts)
        missing = {each.run_id for each in others} - ledger.stored.keys()
        if missing:
            await self._lock(missing, patient=patient)
            await self._look_among_the_waiting(missing - ledger.stored.keys() - self._held)
        turn = Timeslice()
        for arrival in others:
            self._deal_with(arrival)
            await turn.over()
        if intake.questions:
            await self._answer(intake.questions)
        if ledger.suspicion is not None:
            await self._judge(intake.arrivals, ledger.suspicion)

    async def _examine(self, intake: Intake) -> None:
        """Look for runs that have ended a worker, among what was delivered before."""
        run_ids = {each.run_id for each in intake.arrivals if self._may_be_suspect(each)}
        found = await crash_suspects.among(self._tx, run_ids)
        if not found:
            return
        if len(found) > 1 or not all(
            isinstance(each, Arrival) and each.run_id in found for each in intake
        ):
            raise Suspected(frozenset(found))
        self._ledger.suspicion = Suspicion(self._catalogue.watch, found)

    def _may_be_suspect(self, arrival: Arrival) -> bool:
        again = arrival.delivery is not None and arrival.delivery.redelivered
        return again or self.is_suspect(arrival.run_id)

    async def _judge(self, arrivals: Sequence[Arrival], suspicion: Suspicion) -> None:
        """Forget a suspect whose call has returned; dead-letter what came for one that is not."""
        await crash_suspects.acquit(self._tx, suspicion.returned)
        for arrival in arrivals:
            if arrival.run_id in suspicion.refused and isinstance(arrival.trigger, Start | Replied):
                self._ledger.condemn(arrival)

    async def _lock(self, run_ids: set[str], *, patient: bool) -> None:
        stored, most = self._ledger.stored, self._settings.batch_bytes
        if patient:
            stored.update(await runs.lock(self._tx, run_ids, most=most))
        else:
            stored.update(await runs.lock_free(self._tx, run_ids, most=most))
            self._held |= (await runs.status(self._tx, run_ids - stored.keys())).keys()

    async def _look_among_the_waiting(self, missing: Collection[str]) -> None:
        """Find the starts of runs that are not there, and those that have begun meanwhile."""
        most = self._settings.held_requests
        self._waiting = self._ledger.waiting() | await pending_requests.starts_of(
            self._tx, missing, most
        )
        # Each statement has a snapshot of its own: between two a start may have become a run.
        begun = set(missing) - self._waiting.keys()
        most = self._settings.batch_bytes
        self._ledger.stored.update(await runs.lock(self._tx, begun, most=most))

    async def wake(self, run_id: str) -> None:
        """Decide what time alone changes of one run; one that somebody else holds stays due."""
        if self.is_suspect(run_id):
            return  # it is taken alone
        self._ledger.stored.update(await runs.lock_free(self._tx, {run_id}))
        if run_id in self._ledger.stored:
            self._deal_with(Arrival(run_id, Woken()))

    async def take_suspect(self, suspect: Suspect, item: Arrival | None) -> None:
        """Decide what was recorded for one suspect, or else what time alone changes of it."""
        self._ledger.suspicion = Suspicion(self._catalogue.watch, {suspect.run_id: suspect})
        if item is not None:
            await self.take(Intake([item]), patient=False)
            return
        found = await runs.lock_free(self._tx, {suspect.run_id})
        self._ledger.stored.update(found)
        for stored in found.values():
            ours = stored.definition_id in self._catalogue.sagas
            if ours and stored.wake_at is not None and stored.wake_at <= self._ledger.now:
                self._ledger.changed.add(suspect.run_id)
                self._deal_with(Arrival(suspect.run_id, Woken()))
        await self._judge((), self._ledger.suspicion)

    async def take_due(self, limit: int) -> int:
        """Decide the runs that time alone changes by now; the number of them."""
        ledger = self._ledger
        found = await runs.lock_due(
            *(self._tx, self._catalogue.ids, limit),
            most=self._settings.batch_bytes,
            without=self._catalogue.suspected,  # a run that has ended a worker is taken alone
        )
        # A run that this transaction has in hand is not read again: it is not saved yet.
        due = {run_id: run for run_id, run in found.items() if run_id not in ledger.stored}
        ledger.stored.update(due)
        turn = Timeslice()
        for run_id, stored in due.items():
            await turn.over()
            ledger.changed.add(run_id)  # the wake-up is spent, even if nothing was due
            saga = self._catalogue.sagas[stored.definition_id]
            decision = self._decide(saga, stored.run, Woken(), None)
            if decision is not None:
                self._apply(saga, stored, decision, None)
            else:
                ledger.stored[run_id] = replace(stored, wake_at=ledger.now + FAULT_PAUSE)
        return len(due)

    def is_suspect(self, run_id: str) -> bool:
        """Whether a run has ended a worker, so that it is taken alone."""
        return run_id in self._catalogue.suspected

    def put_by(self, arrival: Arrival) -> None:
        """Keep it in PostgreSQL for a moment later; this touches no run and no key."""
        self._ledger.put_by(arrival)

    async def settle_as_fault(self, arrival: Arrival) -> None:
        """
        Deal with what hits a bug of ours: an accepted start is a run with an incident.

        What else there is is refused, and kept where it would be lost.
        """
        if isinstance(arrival.trigger, Start) and arrival.fingerprint is not None:
            await Starts(
                *(self._tx, self._catalogue, self._admission, self._ledger), self._settings
            ).begin_as_fault(arrival, FAULT)
        else:
            await self.refuse_as_fault(arrival)

    async def refuse_as_fault(self, arrival: Arrival) -> None:
        """Refuse what hits a bug of ours, and keep what would be lost; its key is free again."""
        self._refuse(arrival, FAULT)
        await self._release(arrival)

    def _refuse(self, arrival: Arrival, text: str) -> None:
        self._ledger.refuse(arrival, AnswerOutcome.REFUSED, text)
        self._ledger.set_aside(arrival, "engine_fault", text)

    async def _refuse_unread(self, unread: Unread) -> None:
        arrival = unread.arrival
        self._ledger.refuse(arrival, AnswerOutcome.INVALID, unread.sentence)
        self._ledger.set_aside(arrival, unread.reason, unread.sentence)
        await self._release(arrival)

    async def _release(self, arrival: Arrival) -> None:
        """Give back the key of a start that was recorded and does not begin."""
        row = arrival.recorded
        if row is not None and row.kind == "start" and row.key is not None:
            await business_keys.release(self._tx, arrival.saga, row.key, arrival.run_id)

    def _deal_with(self, arrival: Arrival) -> None:
        ledger = self._ledger
        stored = ledger.stored.get(arrival.run_id)
        if arrival.run_id in self._held:
            ledger.put_by(arrival)
            return
        if stored is None and arrival.run_id in self._waiting:
            # Asked before it is stored: a cancel that may not be sent must not wait with the start.
            start = self._waiting[arrival.run_id]
            if not self._turned_away(arrival, start.saga):
                self._hold(arrival, start)
            return
        if stored is None:
            text = "There is no such run; it may have been dropped with its partition."
            ledger.refuse(arrival, AnswerOutcome.UNKNOWN_RUN, text)
            if isinstance(arrival.trigger, Replied):
                ledger.set_aside(arrival, "unknown_run", text)
            return
        saga = self._catalogue.sagas.get(stored.definition_id)
        if self._turned_away(arrival, stored.run.saga, saga):
            return
        if saga is None:
            ledger.park(arrival)
        else:
            self._act_on(saga, stored, arrival)

    def _hold(self, arrival: Arrival, start: WaitingStart) -> None:
        """Keep a request until its run begins; one run cannot fill the table with them."""
        if start.held >= self._settings.held_requests:
            text = (
                f"{start.held} requests wait already for run {arrival.run_id} to begin"
                " (held_requests). Ask again when it has begun."
            )
            self._ledger.refuse(arrival, AnswerOutcome.REFUSED, text)
            return
        self._waiting[arrival.run_id] = replace(start, held=start.held + 1)
        self._ledger.hold(arrival)

    def _act_on(self, saga: Saga, stored: StoredRun, arrival: Arrival) -> None:
        ledger = self._ledger
        decision = self._decide(saga, stored.run, arrival.trigger, arrival)
        if decision is None:
            return
        if decision.ignored:
            ledger.ignore(arrival, decision.ignored)
        if decision.refused:
            ledger.refuse(arrival, AnswerOutcome.REFUSED, decision.refused)
        else:
            ledger.accept(arrival, self._apply(saga, stored, decision, arrival))

    def _turned_away(self, arrival: Arrival, name: str, saga: Saga | None = None) -> bool:
        """Whether its sender may not send it; then it is set aside and the run not told."""
        if arrival.sender is None:
            return False  # Recorded in the database: its permissions have let it through.
        match arrival.trigger:
            case Replied(step, direction) | Garbled(step, direction) if saga is not None:
                order = saga.steps[step].order(direction) if step in saga.steps else None
                command, rules = order.command if order else "", self._settings.reply_users
                problem = stranger(rules, command, arrival.sender, may="be answered")
            case Start() | Cancel() as request:
                verb = "start" if isinstance(request, Start) else "cancel"
                rules = self._settings.request_users
                problem = stranger(rules, f"{verb} {name}", arrival.sender, may="be sent")
            case _:
                return False
        if problem:
            self._ledger.turn_away(arrival, problem)
        return bool(problem)

    def _decide(
        self, saga: Saga, run: Run, trigger: Trigger, arrival: Arrival | None
    ) -> Decision | None:
        """Decide; None when that hits a bug of ours, which must not stop the other runs."""
        ledger, catalogue = self._ledger, self._catalogue
        try:
            decision = decide(
                *(saga, run, trigger, ledger.now, catalogue.sealing),
                watch=ledger.watch(catalogue.watch),
                limits=catalogue.limits,
            )
        except Exception as error:  # noqa: BLE001 - `decide` is total, so this is a bug in it
            self._ledger.outcome.faults.append((run.run_id, error))
            if arrival is not None:
                self._refuse(arrival, f"The engine could not decide it: {type(error).__name__}.")
            return None
        ledger.outcome.failures.extend(decision.failures)
        return decision

    def _apply(
        self, saga: Saga, before: StoredRun, decision: Decision, arrival: Arrival | None
    ) -> Run:
        run = decision.run
        assert run is not None, "there was one before"
        after = StoredRun(run, before.definition_id, wake_at(saga, run))
        self._ledger.stored[run.run_id] = after
        if decision.events:
            self._ledger.changed.add(run.run_id)
            self._ledger.record(before.run, run, decision.events, arrival)
        return run

    async def _answer(self, questions: Sequence[Question]) -> None:
        found = await runs.status(self._tx, {each.run_id for each in questions})
        unknown = {each.run_id for each in questions} - found.keys()
        waiting = self._ledger.waiting() | await pending_requests.starts_of(self._tx, unknown)
        for run_id, start in waiting.items():
            if start.version is not None:
                found[run_id] = RunStatus(Status.RUNNING, start.saga, start.version, start.key)
        found |= await runs.status(self._tx, unknown - found.keys())  # it may just have begun
        for question in questions:
            status = found.get(question.run_id)
            known = status is not None or question.run_id in waiting
            outcome = AnswerOutcome.EXISTING if known else AnswerOutcome.UNKNOWN_RUN
            self._ledger.answer(question.answer_to, outcome, question.run_id, status)
