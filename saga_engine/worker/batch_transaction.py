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
from saga_engine.decider.triggers import (
    Cancel,
    MalformedReply,
    ReplyReceived,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import business_keys, crash_suspects, pending_requests, runs
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.pending_requests import PendingStart
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import Status
from saga_engine.worker.admission import Admission
from saga_engine.worker.authorization import refusal_for
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.crash_suspects import SuspectsInBatch, SuspectWatch
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.starts import StartProcessor
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import StatusQuery, UnreadableRequest, WorkBatch, WorkItem

INTERNAL_ERROR_TEXT = "The engine could not handle it; see its log."

INTERNAL_ERROR_DELAY = timedelta(minutes=5)
"""
How long a run rests whose timers hit a bug of ours, so that it does not hit it without end: longer
than `idle_run_threshold`, or it would take the place of one that can go on.
"""


class BatchTransaction:
    """One transaction's work: what it takes is decided at once, and stands in the ledger."""

    def __init__(
        self,
        tx: SqlAlchemyTransaction,
        registry: SagaRegistry,
        admission: Admission,
        changes: ChangeSet,
        settings: Settings,
    ) -> None:
        self._tx = tx
        self._registry = registry
        self._admission = admission
        self._changes = changes
        self._settings = settings
        self._queued_starts: dict[str, PendingStart] = {}
        self._locked_elsewhere: set[str] = set()

    async def process(self, work_batch: WorkBatch, *, wait_for_locks: bool) -> None:
        """
        Decide what has arrived.

        Args:
            patient: whether to wait for a run that somebody else holds; otherwise what is for it is
                put by, and it holds up nothing.
        """
        await self._watch_suspects(work_batch)
        changes = self._changes
        for dead_letter in work_batch.dead_letters:
            changes.add_dead_letter(dead_letter)
        for unreadable in work_batch.unreadable:
            await self._refuse_unreadable(unreadable)
        starts = [
            each
            for each in work_batch.work_items
            if isinstance(each.trigger, Start) and not self._reject_unauthorized(each, each.saga)
        ]
        others = [each for each in work_batch.work_items if not isinstance(each.trigger, Start)]
        if starts:
            await StartProcessor(
                *(self._tx, self._registry, self._admission, changes), self._settings
            ).process(starts)
        run_ids_to_lock = {each.run_id for each in others} - changes.locked_runs.keys()
        if run_ids_to_lock:
            await self._lock_runs(run_ids_to_lock, wait_for_locks=wait_for_locks)
            await self._load_queued_starts(
                run_ids_to_lock - changes.locked_runs.keys() - self._locked_elsewhere
            )
        timeslice = Timeslice()
        for work_item in others:
            self._process_item(work_item)
            await timeslice.yield_if_over()
        if work_batch.status_queries:
            await self._answer_status_queries(work_batch.status_queries)
        if changes.suspect_watch is not None:
            await self._resolve_suspects(work_batch.work_items, changes.suspect_watch)

    async def _watch_suspects(self, work_batch: WorkBatch) -> None:
        """Look for runs that have ended a worker, among what was delivered before."""
        run_ids = {each.run_id for each in work_batch.work_items if self._may_be_suspect(each)}
        found = await crash_suspects.read_among(self._tx, run_ids)
        if not found:
            return
        if len(found) > 1 or not all(
            isinstance(each, WorkItem) and each.run_id in found for each in work_batch
        ):
            raise SuspectsInBatch(frozenset(found))
        self._changes.suspect_watch = SuspectWatch(self._registry.watch, found)

    def _may_be_suspect(self, work_item: WorkItem) -> bool:
        redelivered = work_item.delivery is not None and work_item.delivery.redelivered
        return redelivered or self.is_suspect(work_item.run_id)

    async def _resolve_suspects(
        self, work_items: Sequence[WorkItem], suspect_watch: SuspectWatch
    ) -> None:
        """Forget a suspect whose call has returned; dead-letter what came for one that is not."""
        await crash_suspects.clear(self._tx, suspect_watch.returned_run_ids)
        for work_item in work_items:
            if work_item.run_id in suspect_watch.refused_run_ids and isinstance(
                work_item.trigger, Start | ReplyReceived
            ):
                self._changes.dead_letter_crash_suspect(work_item)

    async def _lock_runs(self, run_ids: set[str], *, wait_for_locks: bool) -> None:
        locked_runs, max_bytes = self._changes.locked_runs, self._settings.max_batch_bytes
        if wait_for_locks:
            locked_runs.update(await runs.lock(self._tx, run_ids, max_bytes=max_bytes))
        else:
            locked_runs.update(await runs.lock_skip_locked(self._tx, run_ids, max_bytes=max_bytes))
            self._locked_elsewhere |= (
                await runs.read_statuses(self._tx, run_ids - locked_runs.keys())
            ).keys()

    async def _load_queued_starts(self, missing_run_ids: Collection[str]) -> None:
        """Find the starts of runs that are not there, and those that have begun meanwhile."""
        max_bytes = self._settings.max_pending_requests_per_run
        self._queued_starts = self._changes.queued_starts() | await pending_requests.find_starts(
            self._tx, missing_run_ids, max_bytes
        )
        # Each statement has a snapshot of its own: between two a start may have become a run.
        started_run_ids = set(missing_run_ids) - self._queued_starts.keys()
        max_bytes = self._settings.max_batch_bytes
        self._changes.locked_runs.update(
            await runs.lock(self._tx, started_run_ids, max_bytes=max_bytes)
        )

    async def wake_run(self, run_id: str) -> None:
        """Decide what time alone changes of one run; one that somebody else holds stays due."""
        if self.is_suspect(run_id):
            return  # it is taken alone
        self._changes.locked_runs.update(await runs.lock_skip_locked(self._tx, {run_id}))
        if run_id in self._changes.locked_runs:
            self._process_item(WorkItem(run_id, WakeUp()))

    async def process_suspect(self, suspect: CrashSuspect, work_item: WorkItem | None) -> None:
        """Decide what was recorded for one suspect, or else what time alone changes of it."""
        self._changes.suspect_watch = SuspectWatch(self._registry.watch, {suspect.run_id: suspect})
        if work_item is not None:
            await self.process(WorkBatch([work_item]), wait_for_locks=False)
            return
        found = await runs.lock_skip_locked(self._tx, {suspect.run_id})
        self._changes.locked_runs.update(found)
        for stored in found.values():
            has_definition = stored.definition_id in self._registry.sagas
            if (
                has_definition
                and stored.wake_at is not None
                and stored.wake_at <= self._changes.now
            ):
                self._changes.changed_run_ids.add(suspect.run_id)
                self._process_item(WorkItem(suspect.run_id, WakeUp()))
        await self._resolve_suspects((), self._changes.suspect_watch)

    async def process_due_runs(self, limit: int) -> int:
        """Decide the runs that time alone changes by now; the number of them."""
        changes = self._changes
        found = await runs.lock_due(
            *(self._tx, self._registry.definition_ids, limit),
            max_bytes=self._settings.max_batch_bytes,
            # a run that has ended a worker is taken alone
            excluding=self._registry.suspect_run_ids,
        )
        # A run that this transaction has in hand is not read again: it is not saved yet.
        due = {run_id: run for run_id, run in found.items() if run_id not in changes.locked_runs}
        changes.locked_runs.update(due)
        timeslice = Timeslice()
        for run_id, stored in due.items():
            await timeslice.yield_if_over()
            changes.changed_run_ids.add(run_id)  # the wake-up is spent, even if nothing was due
            saga = self._registry.sagas[stored.definition_id]
            decision = self._decide(saga, stored.run, WakeUp(), None)
            if decision is not None:
                self._apply(saga, stored, decision, None)
            else:
                changes.locked_runs[run_id] = replace(
                    stored, wake_at=changes.now + INTERNAL_ERROR_DELAY
                )
        return len(due)

    def is_suspect(self, run_id: str) -> bool:
        """Whether a run has ended a worker, so that it is taken alone."""
        return run_id in self._registry.suspect_run_ids

    def defer(self, work_item: WorkItem) -> None:
        """Keep it in PostgreSQL for a moment later; this touches no run and no key."""
        self._changes.defer(work_item)

    async def handle_internal_error(self, work_item: WorkItem) -> None:
        """
        Deal with what hits a bug of ours: an accepted start is a run with an incident.

        What else there is is refused, and kept where it would be lost.
        """
        if isinstance(work_item.trigger, Start) and work_item.fingerprint is not None:
            await StartProcessor(
                *(self._tx, self._registry, self._admission, self._changes), self._settings
            ).start_with_incident(work_item, INTERNAL_ERROR_TEXT)
        else:
            await self.refuse_for_internal_error(work_item)

    async def refuse_for_internal_error(self, work_item: WorkItem) -> None:
        """Refuse what hits a bug of ours, and keep what would be lost; its key is free again."""
        self._refuse_and_dead_letter(work_item, INTERNAL_ERROR_TEXT)
        await self._release_key(work_item)

    def _refuse_and_dead_letter(self, work_item: WorkItem, text: str) -> None:
        self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
        self._changes.dead_letter(work_item, "internal_error", text)

    async def _refuse_unreadable(self, unreadable: UnreadableRequest) -> None:
        work_item = unreadable.work_item
        self._changes.refuse(work_item, AnswerOutcome.INVALID, unreadable.detail)
        self._changes.dead_letter(work_item, unreadable.reason, unreadable.detail)
        await self._release_key(work_item)

    async def _release_key(self, work_item: WorkItem) -> None:
        """Give back the key of a start that was recorded and does not begin."""
        pending_request = work_item.pending_request
        if (
            pending_request is not None
            and pending_request.kind == "start"
            and pending_request.key is not None
        ):
            await business_keys.release(
                self._tx, work_item.saga, pending_request.key, work_item.run_id
            )

    def _process_item(self, work_item: WorkItem) -> None:
        changes = self._changes
        stored = changes.locked_runs.get(work_item.run_id)
        if work_item.run_id in self._locked_elsewhere:
            changes.defer(work_item)
            return
        if stored is None and work_item.run_id in self._queued_starts:
            # Asked before it is stored: a cancel that may not be sent must not wait with the start.
            start = self._queued_starts[work_item.run_id]
            if not self._reject_unauthorized(work_item, start.saga):
                self._hold_until_started(work_item, start)
            return
        if stored is None:
            text = "There is no such run; it may have been dropped with its partition."
            changes.refuse(work_item, AnswerOutcome.UNKNOWN_RUN, text)
            if isinstance(work_item.trigger, ReplyReceived):
                changes.dead_letter(work_item, "unknown_run", text)
            return
        saga = self._registry.sagas.get(stored.definition_id)
        if self._reject_unauthorized(work_item, stored.run.saga, saga):
            return
        if saga is None:
            changes.await_definition(work_item)
        else:
            self._decide_and_apply(saga, stored, work_item)

    def _hold_until_started(self, work_item: WorkItem, start: PendingStart) -> None:
        """Keep a request until its run begins; one run cannot fill the table with them."""
        if start.blocked_requests >= self._settings.max_pending_requests_per_run:
            text = (
                f"{start.blocked_requests} requests wait already for run {work_item.run_id} to"
                " begin"
                " (max_pending_requests_per_run). Ask again when it has begun."
            )
            self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
            return
        self._queued_starts[work_item.run_id] = replace(
            start, blocked_requests=start.blocked_requests + 1
        )
        self._changes.await_admission(work_item)

    def _decide_and_apply(self, saga: Saga, stored: StoredRun, work_item: WorkItem) -> None:
        changes = self._changes
        decision = self._decide(saga, stored.run, work_item.trigger, work_item)
        if decision is None:
            return
        if decision.ignored_reason:
            changes.ignore(work_item, decision.ignored_reason)
        if decision.refusal:
            changes.refuse(work_item, AnswerOutcome.REFUSED, decision.refusal)
        else:
            changes.accept(work_item, self._apply(saga, stored, decision, work_item))

    def _reject_unauthorized(
        self, work_item: WorkItem, saga_name: str, saga: Saga | None = None
    ) -> bool:
        """Whether its sender may not send it; then it is set aside and the run not told."""
        if work_item.sender is None:
            return False  # Recorded in the database: its permissions have let it through.
        match work_item.trigger:
            case ReplyReceived(step, direction) | MalformedReply(step, direction) if (
                saga is not None
            ):
                command_spec = (
                    saga.steps[step].command_spec(direction) if step in saga.steps else None
                )
                command, rules = (
                    command_spec.command if command_spec else "",
                    self._settings.authorized_reply_users,
                )
                problem = refusal_for(rules, command, work_item.sender, permission="be answered")
            case Start() | Cancel() as request:
                verb = "start" if isinstance(request, Start) else "cancel"
                rules = self._settings.authorized_request_users
                problem = refusal_for(
                    rules, f"{verb} {saga_name}", work_item.sender, permission="be sent"
                )
            case _:
                return False
        if problem:
            self._changes.reject_sender(work_item, problem)
        return bool(problem)

    def _decide(
        self, saga: Saga, run: Run, trigger: Trigger, work_item: WorkItem | None
    ) -> Decision | None:
        """Decide; None when that hits a bug of ours, which must not stop the other runs."""
        changes, registry = self._changes, self._registry
        try:
            decision = decide(
                *(saga, run, trigger, changes.now, registry.encryption),
                time_limit=changes.effective_watch(registry.watch),
                limits=registry.limits,
            )
        except Exception as error:  # noqa: BLE001 - `decide` is total, so this is a bug in it
            self._changes.after_commit.internal_errors.append((run.run_id, error))
            if work_item is not None:
                self._refuse_and_dead_letter(
                    work_item, f"The engine could not decide it: {type(error).__name__}."
                )
            return None
        changes.after_commit.code_failures.extend(decision.code_errors)
        return decision

    def _apply(
        self, saga: Saga, before: StoredRun, decision: Decision, work_item: WorkItem | None
    ) -> Run:
        run = decision.run
        assert run is not None, "there was one before"
        after = StoredRun(run, before.definition_id, wake_at(saga, run))
        self._changes.locked_runs[run.run_id] = after
        if decision.events:
            self._changes.changed_run_ids.add(run.run_id)
            self._changes.record_decision(before.run, run, decision.events, work_item)
        return run

    async def _answer_status_queries(self, status_queries: Sequence[StatusQuery]) -> None:
        statuses = await runs.read_statuses(self._tx, {each.run_id for each in status_queries})
        unknown = {each.run_id for each in status_queries} - statuses.keys()
        queued_starts = self._changes.queued_starts() | await pending_requests.find_starts(
            self._tx, unknown
        )
        for run_id, start in queued_starts.items():
            if start.version is not None:
                statuses[run_id] = RunStatus(Status.RUNNING, start.saga, start.version, start.key)
        statuses |= await runs.read_statuses(
            self._tx, unknown - statuses.keys()
        )  # it may just have begun
        for status_query in status_queries:
            status = statuses.get(status_query.run_id)
            known = status is not None or status_query.run_id in queued_starts
            outcome = AnswerOutcome.EXISTING if known else AnswerOutcome.UNKNOWN_RUN
            self._changes.answer(status_query.answer_to, outcome, status_query.run_id, status)
