"""
The change set of one batch: what its transaction has found and decided, before it is written.

The modules that run inside the transaction share one `ChangeSet`. It holds the runs as they will be
saved, the events and the commands, and what is emitted, answered and published after the commit. It
uses neither the store nor the broker; `flush` writes it, `emit` and `outbox_publisher` use the
`AfterCommit` part.

Each work item meets one or more of these fates:

    accepted              its decision is recorded; the client is answered `accepted`
    ignored               it changes nothing, for example because it is a duplicate
    refused               it is not carried out; the client is answered with the reason
    dead-lettered         it cannot be processed; it is kept for an operator with its reason
    sender rejected       its user may not send it; it is dead-lettered and never reaches its run
    deferred              another transaction holds its run or its key; it is stored and retried
    awaiting definition   it is stored until a worker has the definition of its run
    awaiting admission    it is stored until a slot is free for its start, or for its run's start
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from saga_engine.decider.events import Event
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import MalformedReply, ResolveIncident, Start
from saga_engine.payload.guard import CallTimeLimit, UserCodeError
from saga_engine.protocol.answer import Answer, AnswerAddress, AnswerOutcome
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.run_result import RunResult, result_of_run
from saga_engine.store.batch_append import AppendResult, BatchAppend, NewKey
from saga_engine.store.outbox import OutboxRow
from saga_engine.store.pending_requests import PendingStart
from saga_engine.store.runs import StoredRun
from saga_engine.vocabulary import Failure, IgnoredReason, OperatorActionKind
from saga_engine.worker.crash_suspects import MAX_CRASHES, SuspectTimeLimit
from saga_engine.worker.work_item import (
    DeadLetterItem,
    StatusQuery,
    WorkItem,
    as_delivery,
    has_signed_token,
    is_accepted_start,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedDecision:
    """A decision that changed a run: its events in order, and the run around all of them."""

    before: Run | None  # None: the run starts with it
    after: Run
    events: Sequence[Event]
    work_item: WorkItem | None  # None: a timer was due


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorAnswer:
    """The outcome of an operator action, for its audit record."""

    audit_id: str
    run_id: str
    action: OperatorActionKind
    accepted: bool
    message: str


@dataclass(frozen=True, slots=True)
class AnswerToSend:
    """An answer, and the run that was decided for it; empty if it follows from no decision."""

    address: AnswerAddress
    answer: Answer
    run_id: str


@dataclass(slots=True, kw_only=True)
class AfterCommit:
    """
    What is published, answered and emitted after the commit.

    `flush` stores some of it before the commit: `deferred`, `awaiting_definition` and
    `awaiting_admission` as pending requests, `dead_letters` as dead letters, `decisions` in the
    journal. It fills `commands`.
    """

    commands: list[OutboxRow] = field(default_factory=list)
    answers: list[AnswerToSend] = field(default_factory=list)
    decisions: list[AppliedDecision] = field(default_factory=list)
    ignored: list[tuple[WorkItem, IgnoredReason]] = field(default_factory=list)
    dead_letters: list[DeadLetterItem] = field(default_factory=list)
    deferred: list[WorkItem] = field(default_factory=list)
    awaiting_definition: list[WorkItem] = field(default_factory=list)
    awaiting_admission: list[WorkItem] = field(default_factory=list)
    internal_errors: list[tuple[str, Exception]] = field(default_factory=list)
    code_errors: list[UserCodeError] = field(default_factory=list)


class ChangeSet:
    """
    What one transaction has found and decided.

    Attributes:
        now: the time of the database, the same for the whole transaction.
        admitted: the sagas of the runs that start in it, by run id.
        runs: the runs that it has read or started, by id: as they are after its decisions, with
            the revision that was read.
        decided_run_ids: the ids of those about which it has decided something.
        woken_run_ids: the ids of those whose timers it has processed.
        new_keys: the business keys that are reserved with the start of a run, by its id.
        postponed_run_ids: runs whose timers hit a bug of the engine.
        unroutable_ids: rows of the outbox that are deleted if nothing it has decided is lost.
        needing_care: starts that a careful batch has to process, see `starts`, and what is for
            their runs.
        unanswered: the status queries for these runs.
        batch_append: what it appends to the journals, once `flush` executes that.
        suspect_time_limit: set when everything in the batch belongs to one crash suspect.
    """

    def __init__(self, now: datetime, admitted: dict[str, str]) -> None:
        self.now = now
        self.admitted = admitted
        self.runs: dict[str, StoredRun] = {}
        self.decided_run_ids: set[str] = set()
        self.woken_run_ids: set[str] = set()
        self.new_keys: dict[str, NewKey] = {}
        self.postponed_run_ids: set[str] = set()
        self.unroutable_ids: list[int] = []
        self.needing_care: list[WorkItem] = []
        self.unanswered: list[StatusQuery] = []
        self.operator_answers: list[OperatorAnswer] = []
        self.batch_append: BatchAppend | None = None
        self.suspect_time_limit: SuspectTimeLimit | None = None
        self.after_commit = AfterCommit()

    def effective_time_limit(self, default_time_limit: CallTimeLimit) -> CallTimeLimit:
        """What limits the calls into user code in this transaction."""
        return self.suspect_time_limit or default_time_limit

    def record_decision(
        self, before: Run | None, after: Run, events: Sequence[Event], work_item: WorkItem | None
    ) -> None:
        """Record a decision that changed a run."""
        self.after_commit.decisions.append(
            AppliedDecision(before=before, after=after, events=events, work_item=work_item)
        )

    def start(self, stored: StoredRun, events: Sequence[Event], work_item: WorkItem) -> None:
        """Start a run, and answer the client that it is accepted."""
        run = stored.run
        self.runs[run.run_id] = stored
        self.decided_run_ids.add(run.run_id)
        self.record_decision(None, run, events, work_item)
        self.accept(work_item, run)

    def discard_runs(self, lost: Collection[str]) -> None:
        """Forget what was decided about runs that another worker has decided first."""
        after_commit = self.after_commit
        after_commit.decisions = [
            each for each in after_commit.decisions if each.after.run_id not in lost
        ]
        after_commit.answers = [each for each in after_commit.answers if each.run_id not in lost]
        after_commit.ignored = [each for each in after_commit.ignored if each[0].run_id not in lost]
        after_commit.code_errors = [
            each for each in after_commit.code_errors if each.call.run_id not in lost
        ]

    def adopt_outcome(self, result: AppendResult) -> None:
        """Take what was committed from the journal, because the answer to its commit was lost."""
        self.discard_runs(result.lost)
        self.after_commit.commands = list(result.outbox)
        self.runs.clear()  # they have new revisions, and are read again

    def accept(self, work_item: WorkItem, run: Run) -> None:
        """Answer the client, or the operator, that the request is carried out."""
        if work_item.audit_id is not None:
            message = f"The run is {run.status}."
            self._record_operator_answer(work_item.audit_id, work_item, message, accepted=True)
        self._answer_accepted(work_item, run)

    def ignore(self, work_item: WorkItem, reason: IgnoredReason) -> None:
        """Record that a work item changes nothing."""
        self.after_commit.ignored.append((work_item, reason))

    def refuse(
        self, work_item: WorkItem, outcome: AnswerOutcome, detail: str, run_id: str | None = None
    ) -> None:
        """Answer the client, or the operator, why not; `run_id` names another run if it is why."""
        if work_item.audit_id is not None:
            self._record_operator_answer(work_item.audit_id, work_item, detail, accepted=False)
        if work_item.answer_to is not None:
            failure = Failure(outcome.value, detail)
            answer = Answer(
                outcome=outcome, run_id=UUID(run_id or work_item.run_id), refusal=failure
            )
            self._add_answer(work_item.answer_to, answer, work_item.run_id)

    def defer(self, work_item: WorkItem) -> None:
        """Store a work item for a retry: another transaction holds its run or its key."""
        self.after_commit.deferred.append(work_item)

    def await_definition(self, work_item: WorkItem) -> None:
        """Store a work item until a worker has the definition of its run."""
        self.after_commit.awaiting_definition.append(work_item)

    def await_admission(self, work_item: WorkItem) -> None:
        """Store a start until it has a slot, or a request until the start of its run has one."""
        self.after_commit.awaiting_admission.append(work_item)

    def queue_accepted_start(self, work_item: WorkItem, run: Run) -> None:
        """
        Store a start until it has a slot, and answer the client as if the run had started.

        The start is pinned to the definition it was accepted for: that is the one that will start.
        """
        pinned = replace(work_item, version=run.version, fingerprint=run.fingerprint)
        self.await_admission(replace(pinned, answer_to=None))
        self._answer_accepted(work_item, run)

    def queued_starts(self) -> dict[str, PendingStart]:
        """
        Return the starts that this transaction stores, by run id.

        A start of the same run that is stored already takes precedence: it is pinned, and the
        repeated one is not.
        """
        after_commit, found = self.after_commit, {}
        for work_item in (
            *after_commit.awaiting_admission,
            *after_commit.deferred,
            *after_commit.awaiting_definition,
        ):
            if isinstance(start := work_item.trigger, Start):
                found[work_item.run_id] = PendingStart(
                    saga=work_item.saga, version=work_item.version, key=start.key
                )
        return found

    def dead_letter(self, work_item: WorkItem, reason: DeadLetterReason, detail: str) -> None:
        """Dead-letter the message of a work item, or the pending request that it was."""
        delivery = work_item.delivery or as_delivery(work_item)
        if delivery is not None:
            dead_letter = DeadLetterItem(
                delivery=delivery,
                reason=reason,
                detail=detail,
                run_id=work_item.run_id,
                signed=has_signed_token(work_item),
                role=work_item.role,
                # An unreadable start was never accepted; its sender could send it without end.
                quota_exempt=is_accepted_start(work_item)
                and reason != DeadLetterReason.BAD_REQUEST,
            )
            self.add_dead_letter(dead_letter)

    def dead_letter_crash_suspect(self, work_item: WorkItem) -> None:
        """Dead-letter a message whose call into user code has ended too many workers."""
        delivery = work_item.delivery or as_delivery(work_item)
        if delivery is None:
            return
        detail = (
            f"A mapping function or validator of run {work_item.run_id} ended {MAX_CRASHES}"
            " workers. It is not called again for this message; see the incidents of the run and"
            " user_code.hung in the log."
        )
        dead_letters = self.after_commit.dead_letters
        dead_letters[:] = [each for each in dead_letters if each.run_id != work_item.run_id]
        dead_letter = DeadLetterItem(
            delivery=delivery,
            reason=DeadLetterReason.CODE_KILLED_WORKER,
            detail=detail,
            run_id=work_item.run_id,
            signed=has_signed_token(work_item),
            role=work_item.role,
            quota_exempt=is_accepted_start(work_item),
        )
        self.add_dead_letter(dead_letter)

    def reject_sender(self, work_item: WorkItem, detail: str) -> None:
        """Dead-letter a message that its user may not send, and answer the client."""
        delivery = work_item.delivery or as_delivery(work_item)
        if delivery is None or isinstance(work_item.trigger, MalformedReply):
            # A malformed reply is a dead letter already.
            self.ignore(work_item, IgnoredReason.UNAUTHORIZED_SENDER)
            return
        dead_letter = DeadLetterItem(
            delivery=delivery,
            reason=DeadLetterReason.UNAUTHORIZED_SENDER,
            detail=detail,
            run_id=work_item.run_id,
            answer_to=work_item.answer_to,
            signed=has_signed_token(work_item),
            role=work_item.role,
        )
        self.add_dead_letter(dead_letter)

    def add_dead_letter(self, dead_letter: DeadLetterItem) -> None:
        """Record a dead letter, and answer the client that waits, if there is one."""
        self.after_commit.dead_letters.append(dead_letter)
        if dead_letter.answer_to is not None:
            failure = Failure(dead_letter.reason.value, dead_letter.detail)
            answer = Answer(outcome=AnswerOutcome.INVALID, refusal=failure)
            self._add_answer(dead_letter.answer_to, answer, "")

    def _record_operator_answer(
        self, audit_id: str, work_item: WorkItem, message: str, *, accepted: bool
    ) -> None:
        trigger = work_item.trigger
        action = (
            OperatorActionKind(trigger.resolution)
            if isinstance(trigger, ResolveIncident)
            else OperatorActionKind.CANCEL
        )
        operator_answer = OperatorAnswer(
            audit_id=audit_id,
            run_id=work_item.run_id,
            action=action,
            accepted=accepted,
            message=message,
        )
        self.operator_answers.append(operator_answer)

    def _answer_accepted(self, work_item: WorkItem, run: Run) -> None:
        if work_item.answer_to is not None:  # of most work items nothing is answered
            self.answer(work_item.answer_to, AnswerOutcome.ACCEPTED, run.run_id, result_of_run(run))

    def answer(
        self,
        answer_to: AnswerAddress | None,
        outcome: AnswerOutcome,
        run_id: str,
        run: RunResult | None,
        *,
        is_decided: bool = True,
    ) -> None:
        """
        Answer a client about a run, with its state if that is known, if a client waits.

        Args:
            is_decided: whether it follows from what this batch has decided about the run.
        """
        if answer_to is not None:
            answer = Answer(outcome=outcome, run_id=UUID(run_id), run=run)
            self._add_answer(answer_to, answer, run_id if is_decided else "")

    def _add_answer(self, answer_to: AnswerAddress, answer: Answer, run_id: str) -> None:
        self.after_commit.answers.append(AnswerToSend(answer_to, answer, run_id))
