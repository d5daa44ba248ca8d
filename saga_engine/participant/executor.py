"""
One command, from what arrived to what is replied: always an answer, whatever the handler does.

All code of the user runs in a task of its own (`calls`), and what it raises is turned into an
answer there (`verdict`). So nothing here depends on what a handler does to its task.

With a database the handler runs between claiming the barrier's row and recording its answer there,
in one transaction. A rejection rolls that back, with whatever the handler wrote, and is recorded in
a transaction of its own; if another delivery of the command got in between, its answer counts, so
there is only ever one. A failure is rolled back and not recorded: the command may be tried again.

With a codec the handler gets the payload as it was before it was sealed, and what it answers is
sealed before it is recorded: the barrier's row shows no more than the broker does.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant import barrier, verdict
from saga_engine.participant.barrier import IN_HAND, Answer, InHand
from saga_engine.participant.calls import Calls, Task
from saga_engine.participant.database import Database, Undone
from saga_engine.participant.errors import Failed
from saga_engine.participant.handler import Handler
from saga_engine.participant.outage import OPERATION, Away, Outage
from saga_engine.payload.encryption import (
    PAYLOAD_SEALED,
    PLAIN,
    SealError,
    Sealing,
    command_place,
    reply_place,
)
from saga_engine.payload.limits import excess
from saga_engine.postgres.sqlalchemy_errors import code_of, is_away
from saga_engine.protocol.body import write_json
from saga_engine.protocol.command import Command, ReceivedCommand
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.limits import limits_of
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    BarrierHit,
    DatabaseTroubled,
    FaultFound,
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
    Observer,
)
from saga_engine.telemetry.throttle import Repeats
from saga_engine.vocabulary import Direction, Failure, Outcome


@dataclass(slots=True)
class Course:
    """
    What has become of one command so far.

    `begun`: its handler. `raised`: the exception of the handler that is not a refusal. `left`: the
    task in which the handler goes on although it was cancelled.
    """

    received: ReceivedCommand
    begun: bool = False
    raised: BaseException | None = None
    left: Task | None = None

    def leave(self, task: Task) -> None:
        """Note that the handler goes on although it was cancelled."""
        self.left = task


class Performer:
    """Performs the commands of one participant; any number at once."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        database: Database | None,
        settings: Settings,
        tell: Observer,
        sealing: Sealing = PLAIN,
    ) -> None:
        self._handlers = handlers
        self._database = database
        self._settings = settings
        self._tell = tell
        self._sealing = sealing
        self._calls = Calls(settings.participant_grace)
        self._repeats = Repeats(
            settings.log_repeat, clock=lambda: asyncio.get_running_loop().time()
        )
        self.outage: Outage | None = None
        """Where commands wait while the database is away; without it they fail."""

    @property
    def is_away(self) -> bool:
        """Whether the database is away, so that nothing can be begun."""
        return self.outage is not None and bool(self.outage.problem)

    def hurry(self, grace: float) -> None:
        """Give handlers that are cancelled from now on no more than so many seconds to end."""
        self._calls.grace = min(grace, self._calls.grace)

    async def perform(self, received: ReceivedCommand) -> Answer:
        """
        Perform a command within participant_timeout and participant_grace seconds.

        Raises:
            InHand: another delivery has it, and nothing that this one did is kept.
            Away: the database is away, and nothing was done. Nothing else is raised, unless it is
                cancelled.
        """
        began = monotonic()
        command = received.command
        handler = self._handlers.get(command.name)
        if handler is None:
            text = f"No handler here is called {command.name}."
            answer = _no(Outcome.FAILED, Failure("unknown_command", text))
        else:
            answer = await self._guarded(handler, received)
        self._report(received, handler, answer, monotonic() - began)
        return answer

    def give_up(self, received: ReceivedCommand) -> Answer:
        """Answer a command that another delivery has had in hand for too long."""
        self._report(received, self._handlers.get(received.command.name), IN_HAND, 0.0)
        return IN_HAND

    async def _guarded(self, handler: Handler, received: ReceivedCommand) -> Answer:
        course = Course(received)
        limit = asyncio.timeout(self._settings.participant_timeout)
        try:
            async with limit:
                return await self._perform(handler, course)
        except (InHand, Away):
            raise
        except Undone as undone:
            return undone.answer
        except asyncio.CancelledError:
            if course.begun:
                self._abandon(course, "The process stops before it has ended.")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the command is answered
            if limit.expired():
                return self._late(course, error)
            return self._troubled(course, error)

    async def _perform(self, handler: Handler, course: Course) -> Answer:
        command = course.received.command
        if self._database is None:
            return await self._called(handler, course, None)
        undoes = bool(handler.undoes) and command.direction is Direction.COMPENSATION
        try:
            async with self._database.transaction() as tx:
                known = await barrier.enter(tx, command, undoes=undoes)
                return known or await self._once(handler, course, tx)
        except Undone as undone:
            if undone.answer.outcome is not Outcome.REJECTED:
                raise
            answer = undone.answer
        async with self._database.transaction() as tx:
            known = await barrier.enter(tx, command, undoes=undoes)
            if known is None:
                await barrier.leave(tx, command, answer)
            return known or answer

    async def _once(self, handler: Handler, course: Course, tx: AsyncConnection) -> Answer:
        transaction = tx.get_transaction()
        answer = await self._called(handler, course, tx)
        if answer.outcome is not Outcome.SUCCEEDED:
            raise Undone(answer) from course.raised
        if transaction is None or not transaction.is_active:
            raise Undone(_ENDED)
        try:
            if await barrier.leave(tx, course.received.command, answer):
                return answer
        except SQLAlchemyError as error:
            changed = _CHANGED.get(code_of(error))
            if changed is None:
                raise
            raise Undone(_no(Outcome.FAILED, changed)) from None
        raise Undone(_ENDED)

    async def _called(self, handler: Handler, course: Course, tx: AsyncConnection | None) -> Answer:
        """Have the handler do it, in a task of its own."""
        course.begun = True
        work = self._answered(handler, course, tx)
        answer = await self._calls.run(course.received, work, course.leave)
        if course.raised is not None:
            self._failed(handler, course, tx)
        return answer

    async def _answered(
        self, handler: Handler, course: Course, tx: AsyncConnection | None
    ) -> Answer:
        command = course.received.command
        try:
            return await self._done(handler, command, tx)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            try:
                return self._answer_to(error, course)
            except BaseException as worse:  # noqa: BLE001 - such as a codec that exits
                course.raised = worse
                return _no(Outcome.FAILED, verdict.fault(worse))

    def _answer_to(self, error: BaseException, course: Course) -> Answer:
        refusal = verdict.refusal_in(error)
        if refusal is None:
            course.raised = error
            return _no(Outcome.FAILED, verdict.fault(error))
        limits = limits_of(self._settings)
        outcome, failure = verdict.refusal(refusal, limits)
        run_id = str(course.received.command.run_id)
        answer = _no(outcome, self._sealing.sealed_failure(failure, run_id))
        if excess(answer.body, limits):  # sealing makes it longer
            answer = _no(outcome, verdict.wordless(refusal))
        return answer

    async def _done(self, handler: Handler, command: Command, tx: AsyncConnection | None) -> Answer:
        """Have the handler do it: it sees the payload unsealed, nobody else its result."""
        place = str(command.run_id), command.step, command.direction
        assert not isinstance(command.payload, bytes), "a command that arrived is decoded"
        try:
            payload = self._sealing.unsealed(command.payload, command_place(*place))
            if payload is not command.payload:
                command = replace(command, payload=payload)
            result = await handler(command, tx)
            body = write_json(self._sealing.sealed(result, reply_place(*place)))
        except SealError as error:
            raise Failed(PAYLOAD_SEALED, f"What it asks or gives {error}.") from None
        problem = excess(body, limits_of(self._settings))
        if problem:  # before the commit: the engine would refuse to read that the step was done
            raise Failed("invalid_result", f"The result is too large. {problem.sentence}")
        return Answer(Outcome.SUCCEEDED, body)

    def _late(self, course: Course, error: Exception) -> Answer:
        """Answer a command whose time is over; nothing of its transaction is kept."""
        seconds = f"{self._settings.participant_timeout:g} s"
        if not course.begun and self.outage is not None:
            self.outage.begin(error)
            raise Away
        if course.left is not None:
            self._abandon(course, "It ignores its cancellation, and keeps its place until it ends.")
        text = f"The handler took longer than participant_timeout, {seconds}."
        return replace(_no(Outcome.FAILED, Failure("timeout", text)), left=course.left)

    def _troubled(self, course: Course, error: Exception) -> Answer:
        """Answer a command that met trouble of the database, or a bug, outside its handler."""
        failure = verdict.fault(error)
        if isinstance(error, PoolTimeoutError) and not course.begun:
            raise Away  # its handlers have all connections: it comes again
        if is_away(error) and self.outage is not None:
            self.outage.begin(error)
            if not course.begun:
                raise Away
        elif isinstance(error, SQLAlchemyError | OSError) or code_of(error):
            if self._repeats.of(OPERATION, failure.code) is not None:
                problem = self.outage.problem_of(error) if self.outage else failure.message
                self._tell(DatabaseTroubled(operation=OPERATION, problem=problem))
        else:
            run_id = str(course.received.command.run_id)
            problem = verdict.place_of(error)
            self._tell(FaultFound(operation=OPERATION, problem=problem, run_id=run_id))
        return _no(Outcome.FAILED, failure)

    def _failed(self, handler: Handler, course: Course, tx: AsyncConnection | None) -> None:
        """Report what a handler raised, unless that is trouble of our database."""
        error = course.raised
        assert error is not None, "it has raised something"
        if tx is not None and tx.invalidated and self.outage is not None:
            self.outage.begin(error)
            return
        problem, code = verdict.place_of(error, handler.file), verdict.fault(error).code
        repeats = self._repeats.of(handler.command, code, problem)
        self._tell(
            HandlerFailed(
                code=code,
                problem=problem,
                repeats=repeats or None,
                again=True if repeats is None else None,
                **_named(course.received),
            )
        )

    def _abandon(self, course: Course, problem: str) -> None:
        running = course.left is not None
        self._tell(HandlerAbandoned(problem=problem, running=running, **_named(course.received)))

    def _report(
        self, received: ReceivedCommand, handler: Handler | None, answer: Answer, seconds: float
    ) -> None:
        command = received.command
        name = handler.command if handler else "unknown"
        run_id = str(command.run_id)
        if answer.case:
            hit = BarrierHit(
                command=name, case=answer.case, run_id=run_id, message_id=received.message_id
            )
            self._tell(hit)
        self._tell(
            HandlerFinished(
                outcome=answer.outcome,
                duration_s=seconds,
                code=verdict.code_in(answer.body, answer.outcome),
                **(_named(received) | {"command": name}),
            )
        )


def _named(received: ReceivedCommand) -> dict[str, Any]:
    """Give what a fact says of the command it is about."""
    command = received.command
    return {
        "command": command.name,
        "run_id": str(command.run_id),
        "saga": command.saga,
        "step": command.step,
        "attempt": command.attempt,
        "message_id": received.message_id,
        "correlation_id": received.correlation_id,
    }


def _no(outcome: Outcome, failure: Failure) -> Answer:
    return Answer(outcome, write_json(failure_json(failure)))


_ENDED = _no(
    Outcome.FAILED, Failure("transaction_ended", "The handler ended its transaction itself.")
)
_CHANGED = {
    "25P02": Failure(
        "transaction_failed",
        "A statement of the handler failed, and its transaction with it. Let the error leave the"
        " handler, or use tx.begin_nested().",
    ),
    "25006": Failure("transaction_read_only", "The handler made its transaction read-only."),
}
