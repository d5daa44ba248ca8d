"""
After the commit: publishes commands, and sends answers and run-finished messages.

Commands are in the outbox, so this module cannot lose one: a command that the broker does not
confirm keeps its row, and the `outbox_resend` duty publishes it again. Answers and run-finished
messages are best effort; a client that misses one asks again. A command that no queue is bound for
becomes a work item for its run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

from saga_engine.amqp.interfaces import MessagePublisher
from saga_engine.decider.events import RunAbandoned, RunCompensated, RunCompleted
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import CommandUnroutable, ReplyReceived, Trigger
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits, find_violation
from saga_engine.protocol.answer import (
    LISTENER_PROBE_TYPE,
    Answer,
    AnswerAddress,
    encode_answer,
    encode_run_finished,
)
from saga_engine.protocol.command import encode_command
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.run_result import RunResult, result_of_run
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.topology import reply_queue_of
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.outbox import OutboxRow
from saga_engine.telemetry.events import Emitter, MessagesPublished
from saga_engine.vocabulary import Command, EngineFailureCode, Failure, Outcome
from saga_engine.worker import change_set
from saga_engine.worker.listeners import Listeners
from saga_engine.worker.work_item import WorkItem

MAX_ERROR_CHARS = 1000
"""Characters kept of an error's message when an answer is too large to be sent in full."""

FINISHING_EVENTS = (RunCompleted, RunCompensated, RunAbandoned)


class OutboxPublisher:
    """
    Publishes what batches have decided.

    It keeps two lists between a publish and the next transaction: the ids of outbox rows that the
    broker has confirmed, which a transaction takes, deletes and, if it fails, gives back; and the
    commands that no queue is bound for, which a batch takes as work items. The batch deletes their
    rows in the transaction that decides them, so that one about which nothing is decided is not
    lost. A row that `outbox_resend` has claimed meanwhile stays, and is published once more.

    Args:
        token_keys: sign the correlation ids; replaced while the worker runs.
        max_write_bytes: how many bytes of bodies are written at once. A larger message is written
            alone.
        limits: what a client reads; an answer beyond them is sent without its result.
        reply_queues: how many queues of replies there are.
    """

    def __init__(
        self,
        publisher: MessagePublisher,
        token_keys: TokenKeys,
        max_write_bytes: int,
        emit: Emitter,
        limits: BodyLimits = DEFAULT_LIMITS,
        reply_queues: int = 1,
    ) -> None:
        self._reply_queues = reply_queues
        self._publisher = publisher
        self._max_write_bytes = max_write_bytes
        self._limits = limits
        self.token_keys = token_keys
        self._emit = emit
        self._listeners = Listeners()
        self._confirmed_ids: list[int] = []
        self._unroutable: list[WorkItem] = []

    @property
    def blocked(self) -> bool:
        """Whether the broker is unavailable or accepts no publishes."""
        return self._publisher.blocked

    @property
    def has_confirmed(self) -> bool:
        """Whether there are outbox rows to delete."""
        return bool(self._confirmed_ids)

    def take_confirmed(self) -> list[int]:
        """Take the ids of the outbox rows to delete; the caller gives them back if it fails."""
        confirmed_ids, self._confirmed_ids = self._confirmed_ids, []
        return confirmed_ids

    def give_back(self, confirmed_ids: Iterable[int]) -> None:
        """Take back ids whose rows were not deleted, so that the next transaction deletes them."""
        self._confirmed_ids.extend(confirmed_ids)

    def take_unroutable(self, limit: int) -> list[WorkItem]:
        """Take up to *limit* commands that no queue is bound for, as work items for their runs."""
        taken = self._unroutable[:limit]
        del self._unroutable[:limit]
        return taken

    async def publish_batch(self, after_commit: change_set.AfterCommit) -> None:
        """
        Publish everything that a committed batch sends, in one write unless it is large.

        Commands come before answers: a run waits for its command, and answers may be large. Of
        many finished runs it first learns whether a client listens: see `listeners`.
        """
        answers = [
            _Notification.of_answer(each.address, each.answer) for each in after_commit.answers
        ]
        finished_runs = list(map(result_of_run, _finished_runs(after_commit.decisions)))
        finished = [_Notification.of_finished_run(each) for each in finished_runs]
        probes = self._listeners.probes(finished_runs)
        if not probes:
            await self._notify(after_commit.commands, answers + finished)
            return
        outcomes = await self._notify(after_commit.commands, answers, probes)
        if self._listeners.have_answered(outcomes):
            await self._notify((), finished)

    async def _notify(
        self,
        rows: Sequence[OutboxRow],
        notifications: Sequence["_Notification"],
        probes: Sequence[Message] = (),
    ) -> Sequence[PublishOutcome]:
        """Publish rows and notifications; the outcomes of *probes*, which are published last."""
        messages = (each.encode(self._limits) for each in notifications)
        results = await self.publish_commands(rows, chain(messages, probes))
        count = len(notifications)
        if PublishOutcome.UNPUBLISHABLE in results[:count]:
            # A result combines replies, so it can exceed the size limit that each of them meets.
            pairs = zip(notifications, results[:count], strict=True)
            await self.publish_commands(
                (),
                [
                    each.shortened()
                    for each, result in pairs
                    if result is PublishOutcome.UNPUBLISHABLE
                ],
            )
        return results[count:]

    async def publish_commands(
        self,
        rows: Sequence[OutboxRow],
        notifications: Iterable[Message] = (),
        *,
        resend: bool = False,
    ) -> Sequence[PublishOutcome]:
        """
        Publish outbox rows and, behind them, other messages; the outcomes of the latter.

        Args:
            resend: whether the rows may have been published before. A command that is unroutable
                now then says nothing about the earlier copy, which may have been delivered.
        """
        messages = chain((self._encode_command(row.command) for row in rows), notifications)
        results: list[PublishOutcome] = []
        for chunk in _chunks(messages, self._max_write_bytes):
            outcomes = await self._publisher.publish(chunk)
            self._emit_published(chunk, outcomes)
            results += outcomes
        for row, result in zip(rows, results[: len(rows)], strict=True):
            match result:
                case PublishOutcome.CONFIRMED:
                    self._confirmed_ids.append(row.id)
                case PublishOutcome.UNROUTABLE | PublishOutcome.UNPUBLISHABLE:
                    self._unroutable.append(_unroutable_item(row, result, resend=resend))
                case PublishOutcome.NACKED | PublishOutcome.UNKNOWN | PublishOutcome.WAITING:
                    pass  # the row stays, and the outbox_resend duty finds it
        return results[len(rows) :]

    def _emit_published(
        self, messages: Sequence[Message], results: Sequence[PublishOutcome]
    ) -> None:
        counts = Counter(
            (message.exchange, result)
            for message, result in zip(messages, results, strict=True)
            if message.type != LISTENER_PROBE_TYPE  # that it is returned is not a fault
        )
        for (exchange, outcome), count in counts.items():
            self._emit(MessagesPublished(exchange=exchange, outcome=outcome, messages=count))

    def _encode_command(self, command: Command) -> Message:
        ref = CommandRef(command.run_id, command.step, command.direction, command.attempt)
        return encode_command(
            command,
            sign_token(self.token_keys.signing, ref),
            reply_to=reply_queue_of(command.run_id, self._reply_queues),
        )


@dataclass(frozen=True, slots=True)
class _Notification:
    """A message for clients, which is encoded when it is written."""

    full: Callable[[], Message]
    shortened: Callable[[], Message]

    @classmethod
    def of_answer(cls, address: AnswerAddress, answer: Answer) -> Self:
        return cls(
            lambda: encode_answer(address, answer),
            lambda: encode_answer(address, _shortened(answer)),
        )

    @classmethod
    def of_finished_run(cls, run: RunResult) -> Self:
        return cls(
            lambda: encode_run_finished(run),
            lambda: encode_run_finished(_without_result(run)),
        )

    def encode(self, limits: BodyLimits) -> Message:
        """Encode it, without its result if the client would refuse to read that much."""
        message = self.full()
        return message if find_violation(message.body, limits) is None else self.shortened()


def _chunks(messages: Iterable[Message], max_bytes: int) -> Iterator[list[Message]]:
    """Group messages into writes of at most *max_bytes*; each is encoded when it is reached."""
    chunk: list[Message] = []
    chunk_bytes = 0
    for message in messages:
        if chunk and chunk_bytes + len(message.body) > max_bytes:
            yield chunk
            chunk, chunk_bytes = [], 0
        chunk.append(message)
        chunk_bytes += len(message.body)
    if chunk:
        yield chunk


def _finished_runs(decisions: Iterable[change_set.AppliedDecision]) -> list[Run]:
    """The runs that a transaction finished and did not reopen for a late success."""
    latest_runs = {each.after.run_id: each.after for each in decisions}
    finished_ids = {
        each.after.run_id
        for each in decisions
        for event in each.events
        if isinstance(event, FINISHING_EVENTS)
    }
    return [
        run
        for run_id, run in latest_runs.items()
        if run_id in finished_ids and run.status.is_finished
    ]


def _unroutable_item(row: OutboxRow, result: PublishOutcome, *, resend: bool) -> WorkItem:
    command = row.command
    if result is PublishOutcome.UNROUTABLE:
        trigger: Trigger = CommandUnroutable(
            command.step, command.direction, command.attempt, never_delivered=not resend
        )
    else:
        failure = Failure.by_engine(
            EngineFailureCode.UNPUBLISHABLE,
            "The command breaks a limit, for example max_body_bytes.",
        )
        trigger = ReplyReceived(
            step=command.step,
            direction=command.direction,
            attempt=command.attempt,
            outcome=Outcome.FAILED,
            failure=failure,
        )
    return WorkItem(run_id=command.run_id, trigger=trigger, outbox_id=row.id)


def _shortened(answer: Answer) -> Answer:
    run, refusal = answer.run, answer.refusal
    return replace(
        answer,
        run=run and _without_result(run),
        refusal=refusal and _without_details(refusal),
    )


def _without_result(run: RunResult) -> RunResult:
    return replace(run, result=None, error=run.error and _without_details(run.error))


def _without_details(failure: Failure) -> Failure:
    return Failure(failure.code, failure.message[:MAX_ERROR_CHARS])
