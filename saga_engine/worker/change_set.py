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

from saga_engine.decider.effects import Send, effects
from saga_engine.decider.events import Event
from saga_engine.decider.run import Run, first_open
from saga_engine.decider.triggers import Garbled, Resolve, Start
from saga_engine.payload.guard import CodeError, Watch
from saga_engine.protocol.answer import Address, Answer, AnswerOutcome
from saga_engine.protocol.unreadable import Reason
from saga_engine.store.outbox import Outgoing
from saga_engine.store.pending_requests import WaitingStart
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import Failure
from saga_engine.worker.crash_suspects import MOST, REASON, Suspicion
from saga_engine.worker.work_item import Arrival, Letter, as_delivered, is_accepted_start, is_signed

WRONG_SENDER = "wrong_sender"
"""Why a message is set aside that a user may not send, see the settings `reply_users`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event; `before` and `after` are the run around the decision that it is part of."""

    before: Run | None
    after: Run
    version: int
    event: Event
    arrival: Arrival | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an operator's request that is on record."""

    audit_id: str
    run_id: str
    action: str
    accepted: bool
    message: str


@dataclass(slots=True)
class Outcome:
    """What is to be done and told once the batch is committed."""

    commands: list[Outgoing] = field(default_factory=list)
    answers: list[tuple[Address, Answer]] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    ignored: list[tuple[Arrival, str]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    parked: list[Arrival] = field(default_factory=list)
    put_by: list[Arrival] = field(default_factory=list)
    held: list[Arrival] = field(default_factory=list)
    faults: list[tuple[str, Exception]] = field(default_factory=list)
    failures: list[CodeError] = field(default_factory=list)


class Ledger:
    """
    One transaction's findings.

    `stored` are the runs that are locked, as they will be saved; `changed` the ids of those that
    must be. `entering` counts, by saga, the runs that begin. `suspicion` is there when all of it
    belongs to one run that has ended a worker. `now` is the database's clock, the
    same for the whole transaction.
    """

    def __init__(self, now: datetime, entering: Counter[str]) -> None:
        self.now = now
        self.entering = entering
        self.stored: dict[str, StoredRun] = {}
        self.changed: set[str] = set()
        self.sends: list[Send] = []
        self.verdicts: list[Verdict] = []
        self.suspicion: Suspicion | None = None
        self.outcome = Outcome()

    def watch(self, usual: Watch) -> Watch:
        """What watches the calls of this transaction's decisions."""
        return self.suspicion or usual

    def record(
        self, before: Run | None, after: Run, events: Iterable[Event], arrival: Arrival | None
    ) -> None:
        """Note the events of one decision, and the commands that follow from them."""
        first = before.revision + 1 if before else 1
        recorded = [
            Recorded(before, after, version, event, arrival)
            for version, event in enumerate(events, first)
        ]
        self.outcome.recorded.extend(recorded)
        self.sends.extend(effects(after, [each.event for each in recorded]))

    def ignore(self, arrival: Arrival, why: str) -> None:
        """Note that an arrival changed nothing."""
        self.outcome.ignored.append((arrival, why))

    def park(self, arrival: Arrival) -> None:
        """Keep an arrival for a worker that has the run's definition."""
        self.outcome.parked.append(arrival)

    def put_by(self, arrival: Arrival) -> None:
        """Keep an arrival for a moment later, because somebody else holds its key or its run."""
        self.outcome.put_by.append(arrival)

    def hold(self, arrival: Arrival) -> None:
        """Keep an arrival until the start it is, or the one before it, has its turn."""
        self.outcome.held.append(arrival)

    def waiting(self) -> dict[str, WaitingStart]:
        """
        Find the starts that this transaction keeps for later, by run id.

        What the inbox has of the same run goes before: it is pinned, and this one again is not.
        """
        outcome, found = self.outcome, {}
        for arrival in (*outcome.held, *outcome.put_by, *outcome.parked):
            if isinstance(start := arrival.trigger, Start):
                found[arrival.run_id] = WaitingStart(arrival.saga, arrival.version, start.key)
        return found

    def queue(self, arrival: Arrival, run: Run) -> None:
        """
        Keep a start until it is its turn; to whoever asked the run is as good as begun.

        What was accepted is what begins: it is pinned to the definition it was accepted for.
        """
        pinned = replace(arrival, version=run.version, fingerprint=run.fingerprint)
        self.hold(replace(pinned, answer_to=None))
        self.answer(arrival.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status_of(run))

    def put_aside(self, letter: Letter) -> None:
        """Keep a dead letter, and tell whoever waits for an answer to it."""
        self.outcome.letters.append(letter)
        if letter.answer_to is not None:
            failure = Failure(letter.reason, letter.sentence)
            answer = Answer(AnswerOutcome.INVALID, error=failure)
            self.outcome.answers.append((letter.answer_to, answer))

    def set_aside(self, arrival: Arrival, reason: str, sentence: str) -> None:
        """Make a dead letter of the message it came in, or of the start that was recorded."""
        delivery = arrival.delivery or as_delivered(arrival)
        if delivery is not None:
            letter = Letter(
                *(delivery, reason, sentence, arrival.run_id),
                signed=is_signed(arrival),
                role=arrival.role,
                # What cannot be read was never accepted; its sender could send it without end.
                owed=is_accepted_start(arrival) and reason != Reason.BAD_REQUEST,
            )
            self.put_aside(letter)

    def condemn(self, arrival: Arrival) -> None:
        """Make a dead letter of a message whose call into the author's code is not made again."""
        delivery = arrival.delivery or as_delivered(arrival)
        letters = self.outcome.letters
        if delivery is None:
            return
        text = (
            f"A mapping function or validator of run {arrival.run_id} ended {MOST} workers. It is"
            " not called again for this message; see the run's incidents and code.stuck in the log."
        )
        letters[:] = [each for each in letters if each.run_id != arrival.run_id]
        letter = Letter(
            *(delivery, REASON, text, arrival.run_id),
            signed=is_signed(arrival),
            role=arrival.role,
            owed=is_accepted_start(arrival),
        )
        self.put_aside(letter)

    def turn_away(self, arrival: Arrival, sentence: str) -> None:
        """Make a dead letter of what its sender may not send, and tell whoever waits."""
        delivery = arrival.delivery or as_delivered(arrival)
        if delivery is None or isinstance(arrival.trigger, Garbled):
            self.ignore(arrival, WRONG_SENDER)  # What nobody can read is a dead letter already.
            return
        letter = Letter(
            *(delivery, WRONG_SENDER, sentence, arrival.run_id, arrival.answer_to),
            signed=is_signed(arrival),
            role=arrival.role,
        )
        self.put_aside(letter)

    def accept(self, arrival: Arrival, run: Run) -> None:
        """Tell whoever asked that it is done."""
        if arrival.audit_id is not None:
            self._judge(arrival.audit_id, arrival, f"The run is {run.status}.", accepted=True)
        self.answer(arrival.answer_to, AnswerOutcome.ACCEPTED, run.run_id, status_of(run))

    def refuse(
        self, arrival: Arrival, outcome: AnswerOutcome, sentence: str, run_id: str | None = None
    ) -> None:
        """Tell whoever asked why not; `run_id` where another run is the reason."""
        if arrival.audit_id is not None:
            self._judge(arrival.audit_id, arrival, sentence, accepted=False)
        if arrival.answer_to is not None:
            answer = Answer(
                outcome, UUID(run_id or arrival.run_id), error=Failure(outcome.value, sentence)
            )
            self.outcome.answers.append((arrival.answer_to, answer))

    def _judge(self, audit_id: str, arrival: Arrival, message: str, *, accepted: bool) -> None:
        trigger = arrival.trigger
        action = trigger.resolution.value if isinstance(trigger, Resolve) else "cancel"
        self.verdicts.append(Verdict(audit_id, arrival.run_id, action, accepted, message))

    def answer(
        self,
        to: Address | None,
        outcome: AnswerOutcome,
        run_id: str,
        status: RunStatus | None,
    ) -> None:
        """Tell whoever asked how a run stands."""
        if to is not None:
            answer = Answer(outcome, UUID(run_id))
            if status is not None:
                answer = Answer(
                    *(outcome, UUID(run_id), status.status, status.result, status.failure),
                    *(status.saga, status.version, status.key),
                    *(status.open_incidents, status.incident),
                )
            self.outcome.answers.append((to, answer))


def status_of(run: Run) -> RunStatus:
    """How a run stands, as `runs.status` would read it."""
    told = run.cause.told if run.cause else None
    return RunStatus(
        *(run.status, run.saga, run.version, run.key, run.result, told),
        *(len(run.incidents), first_open(run)),
    )
