"""
After the commit: commands leave, and whoever waits is told.

Commands are in the outbox already, so nothing here can lose one: what is not confirmed stays there
and the sweep sends it again. Answers and announcements are best effort; who misses one asks again.
A command that no queue is bound for comes back as an arrival for its run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, starmap
from typing import TypeVar
from uuid import UUID

from saga_engine.amqp.publisher import Publisher
from saga_engine.decider.effects import SendCommand
from saga_engine.decider.events import RunAbandoned, RunCompensated, RunCompleted
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import CommandUnroutable, ReplyReceived, Trigger
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits, find_violation
from saga_engine.protocol.answer import (
    Answer,
    AnswerAddress,
    RunFinishedMessage,
    encode_answer,
    encode_run_finished,
)
from saga_engine.protocol.command import Command, encode_command
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.outbox import OutboxRow
from saga_engine.telemetry.events import Emitter, MessagesPublished
from saga_engine.vocabulary import Failure, Outcome
from saga_engine.worker import change_set
from saga_engine.worker.work_item import WorkItem

AnswerOrFinished = TypeVar("AnswerOrFinished", Answer, RunFinishedMessage)

MAX_ERROR_CHARS = 1000
"""Characters of an error's message that are told when all of it is too large to travel."""

FINISHING_EVENTS = (RunCompleted, RunCompensated, RunAbandoned)


class OutboxPublisher:
    """
    Publishes what batches decided.

    `confirmed` holds the outbox rows that the next transaction may delete. `returned` holds the
    commands that can reach nobody, each with its row, until a batch takes them in. `most` is how
    many bytes of bodies are written at once; a message that is larger goes alone. `keys` sign the
    correlation ids; they are replaced while the worker runs.
    """

    def __init__(
        self,
        publisher: Publisher,
        token_keys: TokenKeys,
        max_write_bytes: int,
        emit: Emitter,
        limits: BodyLimits = DEFAULT_LIMITS,
    ) -> None:
        self._publisher = publisher
        self._max_write_bytes = max_write_bytes
        self._limits = limits
        self.token_keys = token_keys
        self._emit = emit
        self.confirmed_ids: list[int] = []
        self.unroutable: list[tuple[int, WorkItem]] = []

    @property
    def blocked(self) -> bool:
        """Whether the broker is away, or takes no publishes."""
        return self._publisher.blocked

    async def publish_batch(self, after_commit: change_set.AfterCommit) -> None:
        """
        Publish all that a committed batch leaves to be sent, in one write unless it is large.

        Commands come before answers: a run waits for its command, and answers may be large.
        """
        answers = after_commit.answers
        finished_messages = list(
            map(_finished_message, _finished_runs(after_commit.decided_events))
        )
        notifications = chain(
            starmap(self._encode_answer, answers), map(self._encode_finished, finished_messages)
        )
        results = await self.publish_commands(after_commit.commands, notifications)
        if PublishOutcome.UNPUBLISHABLE in results:
            # Together, replies of a size that may travel can be more than may travel.
            without_results = [
                encode_answer(address, _without_result(answer)) for address, answer in answers
            ]
            without_results += [
                encode_run_finished(_without_result(finished)) for finished in finished_messages
            ]
            pairs = zip(without_results, results, strict=True)
            await self.publish_commands(
                (), [each for each, result in pairs if result is PublishOutcome.UNPUBLISHABLE]
            )

    def _encode_answer(self, address: AnswerAddress, answer: Answer) -> Message:
        """Leave the result out where its reader would refuse to read so much."""
        message = encode_answer(address, answer)
        if find_violation(message.body, self._limits) is None:
            return message
        return encode_answer(address, _without_result(answer))

    def _encode_finished(self, finished: RunFinishedMessage) -> Message:
        message = encode_run_finished(finished)
        if find_violation(message.body, self._limits) is None:
            return message
        return encode_run_finished(_without_result(finished))

    async def publish_commands(
        self,
        rows: Sequence[OutboxRow],
        notifications: Iterable[Message] = (),
        *,
        resend: bool = False,
    ) -> Sequence[PublishOutcome]:
        """
        Publish outbox rows, and with them what else is to be told; what became of the latter.

        Args:
            again: the rows were left behind, so that they may have been sent before: one that comes
                back then says nothing of the copy that may have arrived.
        """
        messages = chain((self._encode_command(row.send) for row in rows), notifications)
        results: list[PublishOutcome] = []
        for chunk in _chunks(messages, self._max_write_bytes):
            outcomes = await self._publisher.publish(chunk)
            self._emit_published(chunk, outcomes)
            results += outcomes
        for row, result in zip(rows, results[: len(rows)], strict=True):
            match result:
                case PublishOutcome.CONFIRMED:
                    self.confirmed_ids.append(row.id)
                case PublishOutcome.UNROUTABLE | PublishOutcome.UNPUBLISHABLE:
                    work_item = _unroutable_item(row.send, result, first_publish=not resend)
                    self.unroutable.append((row.id, work_item))
                case PublishOutcome.NACKED | PublishOutcome.UNKNOWN:
                    pass  # the row stays, and the sweep finds it
        return results[len(rows) :]

    def _emit_published(
        self, messages: Sequence[Message], results: Sequence[PublishOutcome]
    ) -> None:
        pairs = zip(messages, results, strict=True)
        counts = Counter((message.exchange, result.value) for message, result in pairs)
        for (exchange, outcome), count in counts.items():
            self._emit(MessagesPublished(exchange=exchange, outcome=outcome, messages=count))

    def _encode_command(self, send: SendCommand) -> Message:
        run_id = UUID(send.run_id)
        command = Command(
            run_id,
            send.saga,
            send.version,
            send.step,
            send.direction,
            send.attempt,
            send.command,
            send.idempotency_key,
            send.payload,
            send.due_at,
        )
        ref = CommandRef(run_id, send.step, send.direction, send.attempt)
        return encode_command(command, sign_token(self.token_keys.signing, ref))


def _chunks(messages: Iterable[Message], max_bytes: int) -> Iterator[list[Message]]:
    """Divide messages, each made when it is its turn, into writes of at most so many bytes."""
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


def _finished_runs(decided_events: Iterable[change_set.DecidedEvent]) -> list[Run]:
    """The runs that a transaction finished, and did not open again for a late success."""
    latest_runs = {each.after.run_id: each.after for each in decided_events}
    finished_ids = {
        each.after.run_id for each in decided_events if isinstance(each.event, FINISHING_EVENTS)
    }
    return [
        run
        for run_id, run in latest_runs.items()
        if run_id in finished_ids and run.status.is_finished
    ]


def _unroutable_item(send: SendCommand, result: PublishOutcome, *, first_publish: bool) -> WorkItem:
    if result is PublishOutcome.UNROUTABLE:
        trigger: Trigger = CommandUnroutable(send.step, send.direction, send.attempt, first_publish)
    else:
        failure = Failure(
            "unpublishable", "The command breaks a limit, for example max_body_bytes."
        )
        trigger = ReplyReceived(
            send.step, send.direction, send.attempt, Outcome.FAILED, None, failure
        )
    return WorkItem(send.run_id, trigger)


def _without_result(message: AnswerOrFinished) -> AnswerOrFinished:
    error = message.error and Failure(message.error.code, message.error.message[:MAX_ERROR_CHARS])
    return replace(message, result=None, error=error)


def _finished_message(run: Run) -> RunFinishedMessage:
    return RunFinishedMessage(
        UUID(run.run_id),
        run.saga,
        run.version,
        run.key,
        run.status,
        run.result,
        run.compensation_cause.as_failure if run.compensation_cause else None,
    )
