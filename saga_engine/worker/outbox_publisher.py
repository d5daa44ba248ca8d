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
from saga_engine.decider.effects import Send
from saga_engine.decider.events import RunAbandoned, RunCompensated, RunCompleted
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import Replied, Returned, Trigger
from saga_engine.payload.limits import LIMITS, Limits, excess
from saga_engine.protocol.answer import Address, Answer, Finished, encode_answer, encode_finished
from saga_engine.protocol.command import Command, encode_command
from saga_engine.protocol.message import Message, Published
from saga_engine.protocol.token import CommandRef, mint
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.outbox import Outgoing
from saga_engine.telemetry.events import MessagesPublished, Tell
from saga_engine.vocabulary import Failure, Outcome
from saga_engine.worker import change_set
from saga_engine.worker.work_item import Arrival

Told = TypeVar("Told", Answer, Finished)

MESSAGE_MAX = 1000
"""Characters of an error's message that are told when all of it is too large to travel."""

FINISHING = (RunCompleted, RunCompensated, RunAbandoned)


class Outbound:
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
        keys: TokenKeys,
        most: int,
        tell: Tell,
        limits: Limits = LIMITS,
    ) -> None:
        self._publisher = publisher
        self._most = most
        self._limits = limits
        self.keys = keys
        self._tell = tell
        self.confirmed: list[int] = []
        self.returned: list[tuple[int, Arrival]] = []

    @property
    def blocked(self) -> bool:
        """Whether the broker is away, or takes no publishes."""
        return self._publisher.blocked

    async def send(self, outcome: change_set.Outcome) -> None:
        """
        Publish all that a committed batch leaves to be sent, in one write unless it is large.

        Commands come before answers: a run waits for its command, and answers may be large.
        """
        answers = outcome.answers
        ends = list(map(_finished, _ended(outcome.recorded)))
        told = chain(starmap(self._answer, answers), map(self._end, ends))
        results = await self.commands(outcome.commands, told)
        if Published.REFUSED in results:
            # Together, replies of a size that may travel can be more than may travel.
            short = [encode_answer(address, _without_result(answer)) for address, answer in answers]
            short += [encode_finished(_without_result(end)) for end in ends]
            pairs = zip(short, results, strict=True)
            await self.commands((), [each for each, result in pairs if result is Published.REFUSED])

    def _answer(self, address: Address, answer: Answer) -> Message:
        """Leave the result out where its reader would refuse to read so much."""
        message = encode_answer(address, answer)
        if excess(message.body, self._limits) is None:
            return message
        return encode_answer(address, _without_result(answer))

    def _end(self, end: Finished) -> Message:
        message = encode_finished(end)
        if excess(message.body, self._limits) is None:
            return message
        return encode_finished(_without_result(end))

    async def commands(
        self, rows: Sequence[Outgoing], told: Iterable[Message] = (), *, again: bool = False
    ) -> Sequence[Published]:
        """
        Publish outbox rows, and with them what else is to be told; what became of the latter.

        Args:
            again: the rows were left behind, so that they may have been sent before: one that comes
                back then says nothing of the copy that may have arrived.
        """
        messages = chain((self._message(row.send) for row in rows), told)
        results: list[Published] = []
        for portion in _portions(messages, self._most):
            outcomes = await self._publisher.publish(portion)
            self._count(portion, outcomes)
            results += outcomes
        for row, result in zip(rows, results[: len(rows)], strict=True):
            match result:
                case Published.CONFIRMED:
                    self.confirmed.append(row.id)
                case Published.RETURNED | Published.REFUSED:
                    arrival = _came_back(row.send, result, first=not again)
                    self.returned.append((row.id, arrival))
                case Published.NACKED | Published.UNKNOWN:
                    pass  # the row stays, and the sweep finds it
        return results[len(rows) :]

    def _count(self, messages: Sequence[Message], results: Sequence[Published]) -> None:
        pairs = zip(messages, results, strict=True)
        counts = Counter((message.exchange, result.value) for message, result in pairs)
        for (exchange, outcome), number in counts.items():
            self._tell(MessagesPublished(exchange=exchange, outcome=outcome, messages=number))

    def _message(self, send: Send) -> Message:
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
        return encode_command(command, mint(self.keys.signing, ref))


def _portions(messages: Iterable[Message], most: int) -> Iterator[list[Message]]:
    """Divide messages, each made when it is its turn, into writes of at most so many bytes."""
    portion: list[Message] = []
    size = 0
    for message in messages:
        if portion and size + len(message.body) > most:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.body)
    if portion:
        yield portion


def _ended(recorded: Iterable[change_set.Recorded]) -> list[Run]:
    """The runs that a transaction finished, and did not open again for a late success."""
    now = {each.after.run_id: each.after for each in recorded}
    ended = {each.after.run_id for each in recorded if isinstance(each.event, FINISHING)}
    return [run for run_id, run in now.items() if run_id in ended and run.status.finished]


def _came_back(send: Send, result: Published, *, first: bool) -> Arrival:
    if result is Published.RETURNED:
        trigger: Trigger = Returned(send.step, send.direction, send.attempt, first)
    else:
        failure = Failure("unpublishable", "The command breaks a limit, for example body_bytes.")
        trigger = Replied(send.step, send.direction, send.attempt, Outcome.FAILED, None, failure)
    return Arrival(send.run_id, trigger)


def _without_result(told: Told) -> Told:
    error = told.error and Failure(told.error.code, told.error.message[:MESSAGE_MAX])
    return replace(told, result=None, error=error)


def _finished(run: Run) -> Finished:
    return Finished(
        UUID(run.run_id),
        run.saga,
        run.version,
        run.key,
        run.status,
        run.result,
        run.cause.told if run.cause else None,
    )
