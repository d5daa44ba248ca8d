"""
What one transaction has found and decided so far, before anything is written.

The parts of a batch share one Ledger: the runs as they will be saved, the events, the commands, and
what is to be told once the batch is committed. It touches neither the store nor the broker.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from saga_engine.decider.effects import SendCommand, effects
from saga_engine.decider.events import Event
from saga_engine.decider.run import Run, first_open_incident
from saga_engine.decider.triggers import MalformedReply, ResolveIncident, Start
from saga_engine.payload.guard import CallTimeLimit, UserCodeError
from saga_engine.protocol.answer import Answer, AnswerAddress, AnswerOutcome
from saga_engine.protocol.unreadable import UnreadableReason
from saga_engine.store.outbox import OutboxRow
from saga_engine.store.pending_requests import PendingStart
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import Failure
from saga_engine.worker.crash_suspects import CODE_KILLED_WORKER, MAX_CRASHES, SuspectWatch
from saga_engine.worker.work_item import (
    DeadLetterItem,
    WorkItem,
    as_delivery,
    has_signed_token,
    is_accepted_start,
)

UNAUTHORIZED_SENDER = "unauthorized_sender"
"""
Why a message is set aside that a user may not send, see the settings `authorized_reply_users`.
"""


@dataclass(frozen=True, slots=True)
class DecidedEvent:
    """One event; `before` and `after` are the run around the decision that it is part of."""

    before: Run | None
    after: Run
    revision: int
    event: Event
    work_item: WorkItem | None


@dataclass(frozen=True, slots=True)
class OperatorAnswer:
    """What became of an operator's request that is on record."""

    audit_id: str
    run_id: str
    action: str
    accepted: bool
    message: str


@dataclass(slots=True)
class AfterCommit:
    """What is to be done and told once the batch is committed."""

    commands: list[OutboxRow] = field(default_factory=list)
    answers: list[tuple[AnswerAddress, Answer]] = field(default_factory=list)
    decided_events: list[DecidedEvent] = field(default_factory=list)
    ignored: list[tuple[WorkItem, str]] = field(default_factory=list)
    dead_letters: list[DeadLetterItem] = field(default_factory=list)
    awaiting_definition: list[WorkItem] = field(default_factory=list)
    deferred: list[WorkItem] = field(default_factory=list)
    awaiting_admission: list[WorkItem] = field(default_factory=list)
    internal_errors: list[tuple[str, Exception]] = field(default_factory=list)
    code_failures: list[UserCodeError] = field(default_factory=list)


class ChangeSet:
    """
    One transaction's findings.

    `stored` are the runs that are locked, as they will be saved; `changed` the ids of those that
    must be. `entering` counts, by saga, the runs that begin. `suspicion` is there when all of it
    belongs to one run that has ended a worker. `now` is the database's clock, the
    same for the whole transaction.
    """

    def __init__(self, now: datetime, admitted: Counter[str]) -> None:
        self.now = now
        self.admitted = admitted
        self.locked_runs: dict[str, StoredRun] = {}
        self.changed_run_ids: set[str] = set()
        self.sends: list[SendCommand] = []
        self.operator_answers: list[OperatorAnswer] = []
        self.suspect_watch: SuspectWatch | None = None
        self.after_commit = AfterCommit()

    def effective_watch(self, default_watch: CallTimeLimit) -> CallTimeLimit:
        """What watches the calls of this transaction's decisions."""
        return self.suspect_watch or default_watch

    def record_decision(
        self, before: Run | None, after: Run, events: Iterable[Event], work_item: WorkItem | None
    ) -> None:
        """Note the events of one decision, and the commands that follow from them."""
        first_revision = before.revision + 1 if before else 1
        decided_events = [
            DecidedEvent(before, after, revision, event, work_item)
            for revision, event in enumerate(events, first_revision)
        ]
        self.after_commit.decided_events.extend(decided_events)
        self.sends.extend(effects(after, [each.event for each in decided_events]))

    def ignore(self, work_item: WorkItem, reason: str) -> None:
        """Note that an arrival changed nothing."""
        self.after_commit.ignored.append((work_item, reason))

    def await_definition(self, work_item: WorkItem) -> None:
        """Keep an arrival for a worker that has the run's definition."""
        self.after_commit.awaiting_definition.append(work_item)

    def defer(self, work_item: WorkItem) -> None:
        """Keep an arrival for a moment later, because somebody else holds its key or its run."""
        self.after_commit.deferred.append(work_item)

    def await_admission(self, work_item: WorkItem) -> None:
        """Keep an arrival until the start it is, or the one before it, has its turn."""
        self.after_commit.awaiting_admission.append(work_item)

    def queued_starts(self) -> dict[str, PendingStart]:
        """
        Find the starts that this transaction keeps for later, by run id.

        What the inbox has of the same run goes before: it is pinned, and this one again is not.
        """
        after_commit, found = self.after_commit, {}
        for work_item in (
            *after_commit.awaiting_admission,
            *after_commit.deferred,
            *after_commit.awaiting_definition,
        ):
            if isinstance(start := work_item.trigger, Start):
                found[work_item.run_id] = PendingStart(work_item.saga, work_item.version, start.key)
        return found

    def queue_accepted_start(self, work_item: WorkItem, run: Run) -> None:
        """
        Keep a start until it is its turn; to whoever asked the run is as good as begun.

        What was accepted is what begins: it is pinned to the definition it was accepted for.
        """
        pinned = replace(work_item, version=run.version, fingerprint=run.fingerprint)
        self.await_admission(replace(pinned, answer_to=None))
        self.answer(work_item.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status_of_run(run))

    def add_dead_letter(self, dead_letter: DeadLetterItem) -> None:
        """Keep a dead letter, and tell whoever waits for an answer to it."""
        self.after_commit.dead_letters.append(dead_letter)
        if dead_letter.answer_to is not None:
            failure = Failure(dead_letter.reason, dead_letter.detail)
            answer = Answer(AnswerOutcome.INVALID, error=failure)
            self.after_commit.answers.append((dead_letter.answer_to, answer))

    def dead_letter(self, work_item: WorkItem, reason: str, detail: str) -> None:
        """Make a dead letter of the message it came in, or of the start that was recorded."""
        delivery = work_item.delivery or as_delivery(work_item)
        if delivery is not None:
            dead_letter = DeadLetterItem(
                *(delivery, reason, detail, work_item.run_id),
                signed=has_signed_token(work_item),
                role=work_item.role,
                # What cannot be read was never accepted; its sender could send it without end.
                quota_exempt=is_accepted_start(work_item)
                and reason != UnreadableReason.BAD_REQUEST,
            )
            self.add_dead_letter(dead_letter)

    def dead_letter_crash_suspect(self, work_item: WorkItem) -> None:
        """Make a dead letter of a message whose call into the author's code is not made again."""
        delivery = work_item.delivery or as_delivery(work_item)
        dead_letters = self.after_commit.dead_letters
        if delivery is None:
            return
        text = (
            f"A mapping function or validator of run {work_item.run_id} ended {MAX_CRASHES}"
            " workers. It is"
            " not called again for this message; see the run's incidents and user_code.hung in"
            " the log."
        )
        dead_letters[:] = [each for each in dead_letters if each.run_id != work_item.run_id]
        dead_letter = DeadLetterItem(
            *(delivery, CODE_KILLED_WORKER, text, work_item.run_id),
            signed=has_signed_token(work_item),
            role=work_item.role,
            quota_exempt=is_accepted_start(work_item),
        )
        self.add_dead_letter(dead_letter)

    def reject_sender(self, work_item: WorkItem, detail: str) -> None:
        """Make a dead letter of what its sender may not send, and tell whoever waits."""
        delivery = work_item.delivery or as_delivery(work_item)
        if delivery is None or isinstance(work_item.trigger, MalformedReply):
            self.ignore(
                work_item, UNAUTHORIZED_SENDER
            )  # What nobody can read is a dead letter already.
            return
        dead_letter = DeadLetterItem(
            *(delivery, UNAUTHORIZED_SENDER, detail, work_item.run_id, work_item.answer_to),
            signed=has_signed_token(work_item),
            role=work_item.role,
        )
        self.add_dead_letter(dead_letter)

    def accept(self, work_item: WorkItem, run: Run) -> None:
        """Tell whoever asked that it is done."""
        if work_item.audit_id is not None:
            self._record_operator_answer(
                work_item.audit_id, work_item, f"The run is {run.status}.", accepted=True
            )
        self.answer(work_item.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status_of_run(run))

    def refuse(
        self, work_item: WorkItem, outcome: AnswerOutcome, detail: str, run_id: str | None = None
    ) -> None:
        """Tell whoever asked why not; `run_id` where another run is the reason."""
        if work_item.audit_id is not None:
            self._record_operator_answer(work_item.audit_id, work_item, detail, accepted=False)
        if work_item.answer_to is not None:
            answer = Answer(
                outcome, UUID(run_id or work_item.run_id), error=Failure(outcome.value, detail)
            )
            self.after_commit.answers.append((work_item.answer_to, answer))

    def _record_operator_answer(
        self, audit_id: str, work_item: WorkItem, message: str, *, accepted: bool
    ) -> None:
        trigger = work_item.trigger
        action = trigger.resolution.value if isinstance(trigger, ResolveIncident) else "cancel"
        self.operator_answers.append(
            OperatorAnswer(audit_id, work_item.run_id, action, accepted, message)
        )

    def answer(
        self,
        answer_to: AnswerAddress | None,
        outcome: AnswerOutcome,
        run_id: str,
        status: RunStatus | None,
    ) -> None:
        """Tell whoever asked how a run stands."""
        if answer_to is not None:
            answer = Answer(outcome, UUID(run_id))
            if status is not None:
                answer = Answer(
                    *(outcome, UUID(run_id), status.status, status.result, status.failure),
                    *(status.saga, status.version, status.key),
                    *(status.open_incidents, status.incident),
                )
            self.after_commit.answers.append((answer_to, answer))


def status_of_run(run: Run) -> RunStatus:
    """How a run stands, as `runs.status` would read it."""
    failure = run.compensation_cause.as_failure if run.compensation_cause else None
    return RunStatus(
        *(run.status, run.saga, run.version, run.key, run.result, failure),
        *(len(run.incidents), first_open_incident(run)),
    )
