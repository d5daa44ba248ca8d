"""
The inside of a batch: reads the runs and decides every work item.

A batch takes what has arrived and groups it by run. A run is taken from the cache of this worker,
or read; no row is locked. Decisions are made in memory and collected in a `ChangeSet`; `flush` then
writes it in one statement for a batch of any size, in which the journal is the fence between
workers. A single work item takes the same path. Some statements write before that: `starts`
reserves business keys, and this module releases the key of a start that is refused and clears crash
suspects.

A run whose definition is not loaded here is not decided: its work item is stored for a worker that
has the definition. A message from a user that may not send it is dead-lettered and reaches no run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from saga_engine.decider.commands import wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.decision import Decision
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import (
    ReplyReceived,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.payload.ports import PayloadPorts
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.pending_requests import PendingStart, RequestKind
from saga_engine.store.runs import StoredRun, bytes_within
from saga_engine.worker.admission import Admission
from saga_engine.worker.authorization import sender_refusal
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.crash_suspects import SuspectTimeLimit, ensure_alone
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.run_cache import RunCache
from saga_engine.worker.starts import StartProcessor
from saga_engine.worker.status_queries import answer_status_queries
from saga_engine.worker.timer_claims import was_moved
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import UnreadableRequest, WorkBatch, WorkItem, is_timer

INTERNAL_ERROR_TEXT = "The engine could not handle it; see its log."


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMode:
    """
    How a batch is processed.

    Args:
        careful: whether starts are processed one statement after another: what a start conflicts
            with is found out and answered. Otherwise they start in the statement that writes all
            runs, and one that loses there is processed again, carefully.
        locked_elsewhere: runs that another transaction has locked; their work items are deferred.
        lost_race: whether its runs were decided by another worker first, so a timer may have moved.
    """

    careful: bool = False
    locked_elsewhere: Collection[str] = frozenset()
    lost_race: bool = False


CAREFUL = BatchMode(careful=True)


class BatchTransaction:
    """The work of one transaction: each call decides at once and collects the result."""

    def __init__(
        self,
        tx: StoreTransaction,
        registry: SagaRegistry,
        admission: Admission,
        cache: RunCache,
        changes: ChangeSet,
        settings: Settings,
    ) -> None:
        self._tx = tx
        self._registry = registry
        self._admission = admission
        self._cache = cache
        self._changes = changes
        self._settings = settings
        self._queued_starts: dict[str, PendingStart] = {}
        self._mode = CAREFUL
        self._cached_bytes = 0

    async def process(self, work_batch: WorkBatch, mode: BatchMode = CAREFUL) -> None:
        """Decide everything in *work_batch*."""
        self._mode = mode
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
            await self._start_processor().process(starts, careful=mode.careful)
        others = self._behind_no_start(others)
        await self._load_runs({each.run_id for each in others})
        timeslice = Timeslice()
        for work_item in others:
            self._process_item(work_item)
            await timeslice.yield_if_over()
        undecided = {each.run_id for each in changes.needing_care}
        queries = [each for each in work_batch.status_queries if each.run_id not in undecided]
        changes.unanswered = [each for each in work_batch.status_queries if each not in queries]
        if queries:
            await answer_status_queries(self._tx, changes, queries)
        if changes.suspect_time_limit is not None:
            await self._resolve_suspects(work_batch.work_items, changes.suspect_time_limit)

    def _behind_no_start(self, work_items: Sequence[WorkItem]) -> list[WorkItem]:
        """Let what is for a run whose start needs care wait for it; return the others."""
        needing_care = self._changes.needing_care
        undecided = {each.run_id for each in needing_care}
        needing_care += [each for each in work_items if each.run_id in undecided]
        return [each for each in work_items if each.run_id not in undecided]

    def _start_processor(self) -> StartProcessor:
        return StartProcessor(
            self._tx, self._registry, self._admission, self._changes, self._settings
        )

    async def _watch_suspects(self, work_batch: WorkBatch) -> None:
        """Find crash suspects; raise SuspectsInBatch if the batch holds another run as well."""
        run_ids = {each.run_id for each in work_batch.work_items if self._may_be_suspect(each)}
        found = await self._tx.read_suspects_among(run_ids)
        if found:
            ensure_alone(found, work_batch)
            self._changes.suspect_time_limit = SuspectTimeLimit(self._registry.time_limit, found)

    def _may_be_suspect(self, work_item: WorkItem) -> bool:
        redelivered = work_item.delivery is not None and work_item.delivery.redelivered
        return redelivered or self.is_suspect(work_item.run_id)

    async def _resolve_suspects(
        self, work_items: Sequence[WorkItem], suspect_time_limit: SuspectTimeLimit
    ) -> None:
        """Clear suspects whose call returned; dead-letter messages whose call was refused."""
        if suspect_time_limit.returned_run_ids:
            await self._tx.clear_suspects(suspect_time_limit.returned_run_ids)
        for work_item in work_items:
            was_refused = work_item.run_id in suspect_time_limit.refused_run_ids
            if was_refused and isinstance(work_item.trigger, Start | ReplyReceived):
                self._changes.dead_letter_crash_suspect(work_item)

    async def _load_runs(self, run_ids: set[str]) -> None:
        """
        Take runs from the cache, and read the others, or the starts that they wait for.

        Raises:
            StoreReadTooLarge: together they have more bytes than one transaction may have.
        """
        runs = self._changes.runs
        run_ids = run_ids - runs.keys() - set(self._mode.locked_elsewhere)
        cached = self._cache.find(sorted(run_ids))
        self._cached_bytes = bytes_within(cached.values(), self._settings.max_batch_bytes)
        runs.update(cached)
        await self._read_runs(run_ids - runs.keys())
        if missing := run_ids - runs.keys():
            await self._load_queued_starts(missing)

    async def _read_runs(self, run_ids: set[str]) -> None:
        if run_ids:
            max_bytes = self._settings.max_batch_bytes - self._cached_bytes
            self._changes.runs.update(await self._tx.read_runs(run_ids, max_bytes=max_bytes))

    async def _load_queued_starts(self, missing_run_ids: set[str]) -> None:
        """Find the queued starts of runs that have no row, and read runs that just got one."""
        count_limit = self._settings.max_pending_requests_per_run
        self._queued_starts = self._changes.queued_starts() | await self._tx.find_starts(
            missing_run_ids, count_limit
        )
        # Each statement has its own snapshot: a start may have become a run between two of them.
        await self._read_runs(missing_run_ids - self._queued_starts.keys())

    async def process_suspect(self, suspect: CrashSuspect, work_item: WorkItem | None) -> None:
        """Process one pending request of a crash suspect, or its timers if there is none."""
        time_limit = SuspectTimeLimit(self._registry.time_limit, {suspect.run_id: suspect})
        self._changes.suspect_time_limit = time_limit
        if work_item is not None:
            await self.process(WorkBatch([work_item]))
            return
        await self._read_runs({suspect.run_id})
        for stored in self._changes.runs.values():
            has_definition = stored.definition_id in self._registry.sagas
            is_due = stored.wake_at is not None and stored.wake_at <= self._changes.now
            if has_definition and is_due:
                self._process_item(WorkItem(run_id=suspect.run_id, trigger=WakeUp()))
        await self._resolve_suspects((), time_limit)

    def is_suspect(self, run_id: str) -> bool:
        """Whether a run is a crash suspect, which is processed alone."""
        return run_id in self._registry.suspect_run_ids

    def defer(self, work_item: WorkItem) -> None:
        """Store a work item for a retry, without touching its run or its key."""
        if not is_timer(work_item):  # its run is due again after the lease
            self._changes.defer(work_item)

    def delete_unroutable(self, work_items: Sequence[WorkItem]) -> None:
        """Delete the outbox rows of work items that are decided or stored in this transaction."""
        ids = [each.outbox_id for each in work_items if each.outbox_id is not None]
        self._changes.unroutable_ids += ids

    def postpone(self, run_id: str) -> None:
        """Let a run whose timers hit a bug of the engine back off."""
        self._changes.postponed_run_ids.add(run_id)

    async def handle_internal_error(self, work_item: WorkItem) -> None:
        """
        Handle a work item that hits a bug of the engine.

        An accepted start becomes a run with an incident. Anything else is refused, and
        dead-lettered if it would be lost.
        """
        if isinstance(work_item.trigger, Start) and work_item.fingerprint is not None:
            await self._start_processor().start_with_incident(work_item, INTERNAL_ERROR_TEXT)
        else:
            await self.refuse_for_internal_error(work_item)

    async def refuse_for_internal_error(self, work_item: WorkItem) -> None:
        """Refuse and dead-letter a work item that hits a bug, and release its business key."""
        self._refuse_and_dead_letter(work_item, INTERNAL_ERROR_TEXT)
        await self._release_key(work_item)

    def _refuse_and_dead_letter(self, work_item: WorkItem, text: str) -> None:
        self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
        self._changes.dead_letter(work_item, DeadLetterReason.INTERNAL_ERROR, text)

    async def _refuse_unreadable(self, unreadable: UnreadableRequest) -> None:
        work_item = unreadable.work_item
        self._changes.refuse(work_item, AnswerOutcome.INVALID, unreadable.detail)
        self._changes.dead_letter(work_item, unreadable.reason, unreadable.detail)
        await self._release_key(work_item)

    async def _release_key(self, work_item: WorkItem) -> None:
        """Release the business key that a stored start reserved, as it does not become a run."""
        request = work_item.pending_request
        if request is not None and request.kind == RequestKind.START and request.key is not None:
            await self._tx.release_key(work_item.saga, request.key, work_item.run_id)

    def _process_item(self, work_item: WorkItem) -> None:
        changes = self._changes
        stored = changes.runs.get(work_item.run_id)
        if work_item.run_id in self._mode.locked_elsewhere:
            self.defer(work_item)
            return
        if stored is None and work_item.run_id in self._queued_starts:
            # Checked before it is stored: an unauthorized cancel must not wait with the start.
            start = self._queued_starts[work_item.run_id]
            if not self._reject_unauthorized(work_item, start.saga):
                self._hold_until_started(work_item, start)
            return
        if stored is None:
            text = "There is no such run; it may have been dropped with its partition."
            changes.refuse(work_item, AnswerOutcome.UNKNOWN_RUN, text)
            if isinstance(work_item.trigger, ReplyReceived):
                changes.dead_letter(work_item, DeadLetterReason.UNKNOWN_RUN, text)
            return
        saga = self._registry.sagas.get(stored.definition_id)
        if self._reject_unauthorized(work_item, stored.run.saga, saga):
            return
        if saga is None:
            changes.await_definition(work_item)
        else:
            self._decide_and_apply(saga, stored, work_item)

    def _hold_until_started(self, work_item: WorkItem, start: PendingStart) -> None:
        """Store a request until its run has started, up to a number for each run."""
        if start.blocked_requests >= self._settings.max_pending_requests_per_run:
            text = (
                f"{start.blocked_requests} requests already wait for run {work_item.run_id} to"
                " start (max_pending_requests_per_run). Send it again when the run has started."
            )
            self._changes.refuse(work_item, AnswerOutcome.REFUSED, text)
            return
        self._queued_starts[work_item.run_id] = replace(
            start, blocked_requests=start.blocked_requests + 1
        )
        self._changes.await_admission(work_item)

    def _decide_and_apply(self, saga: Saga, stored: StoredRun, work_item: WorkItem) -> None:
        changes = self._changes
        lost_timer = self._mode.lost_race and is_timer(work_item)
        if lost_timer and was_moved(stored.wake_at, changes.now, self._settings):
            return
        decision = self._decide(saga, stored.run, work_item.trigger, work_item)
        if decision is None:
            return
        changes.decided_run_ids.add(work_item.run_id)
        if decision.ignored_reason:
            changes.ignore(work_item, decision.ignored_reason)
        if decision.refusal:
            changes.refuse(work_item, AnswerOutcome.REFUSED, decision.refusal)
        else:
            changes.accept(work_item, self._apply(saga, stored, decision, work_item))

    def _reject_unauthorized(
        self, work_item: WorkItem, saga_name: str, saga: Saga | None = None
    ) -> bool:
        """Whether its sender may not send it; if so, it is dead-lettered and reaches no run."""
        refusal = sender_refusal(self._settings, work_item, saga_name, saga)
        if refusal:
            self._changes.reject_sender(work_item, refusal)
        return bool(refusal)

    def _decide(
        self, saga: Saga, run: Run, trigger: Trigger, work_item: WorkItem
    ) -> Decision | None:
        """Decide; None when the engine has a bug there, which must not stop the other runs."""
        changes, registry = self._changes, self._registry
        try:
            time_limit = changes.effective_time_limit(registry.time_limit)
            ports = PayloadPorts(registry.encryption, time_limit, registry.limits)
            decision = decide(saga, run, trigger, changes.now, ports)
        except Exception as error:  # noqa: BLE001 - `decide` is total, so this is a bug of the engine
            changes.after_commit.internal_errors.append((run.run_id, error))
            if is_timer(work_item):
                self.postpone(run.run_id)
            self._refuse_and_dead_letter(
                work_item, f"The engine could not decide it: {type(error).__name__}."
            )
            return None
        changes.after_commit.code_errors.extend(decision.code_errors)
        return decision

    def _apply(self, saga: Saga, before: StoredRun, decision: Decision, work_item: WorkItem) -> Run:
        run = decision.run
        assert run is not None, "a run stays a run"
        self._changes.runs[run.run_id] = replace(before, run=run, wake_at=wake_at(saga, run))
        if isinstance(work_item.trigger, WakeUp) and decision.ignored_reason is None:
            self._changes.woken_run_ids.add(run.run_id)
        if decision.events:
            self._changes.record_decision(before.run, run, decision.events, work_item)
        return run
