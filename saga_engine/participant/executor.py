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
from saga_engine.participant.barrier import IN_PROGRESS_RESULT, CommandInProgress, CommandResult
from saga_engine.participant.calls import HandlerCalls, Task
from saga_engine.participant.database import HandlerRolledBack, ParticipantDatabase
from saga_engine.participant.errors import Failed
from saga_engine.participant.handler import Handler
from saga_engine.participant.outage import CommandDeferred, OutageMonitor
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    EncryptionError,
    PayloadEncryption,
    command_associated_data,
    reply_associated_data,
)
from saga_engine.payload.limits import find_violation
from saga_engine.postgres.sqlalchemy_errors import is_unavailable, sqlstate_of
from saga_engine.protocol.body import write_json
from saga_engine.protocol.command import Command, ReceivedCommand
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.limits import body_limits
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    BarrierHit,
    DatabaseUnavailable,
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
    InternalErrorCaught,
    Observer,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.telemetry.throttle import Throttle
from saga_engine.vocabulary import Direction, EngineFailureCode, Failure, Outcome


@dataclass(slots=True)
class ExecutionState:
    """
    What has become of one command so far.

    `begun`: its handler. `raised`: the exception of the handler that is not a refusal. `left`: the
    task in which the handler goes on although it was cancelled.
    """

    received: ReceivedCommand
    handler_started: bool = False
    handler_error: BaseException | None = None
    abandoned_task: Task | None = None

    def set_abandoned_task(self, task: Task) -> None:
        """Note that the handler goes on although it was cancelled."""
        self.abandoned_task = task


class Executor:
    """Performs the commands of one participant; any number at once."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        database: ParticipantDatabase | None,
        settings: Settings,
        emit: Observer,
        encryption: PayloadEncryption = NO_ENCRYPTION,
    ) -> None:
        self._handlers = handlers
        self._database = database
        self._settings = settings
        self._emit = emit
        self._encryption = encryption
        self._calls = HandlerCalls(settings.participant_cancel_timeout)
        self._throttle = Throttle(
            settings.log_throttle_interval, clock=lambda: asyncio.get_running_loop().time()
        )
        self.outage_monitor: OutageMonitor | None = None
        """Where commands wait while the database is away; without it they fail."""

    @property
    def is_database_unavailable(self) -> bool:
        """Whether the database is away, so that nothing can be begun."""
        return self.outage_monitor is not None and bool(self.outage_monitor.problem)

    def shorten_grace_period(self, grace_period: float) -> None:
        """Give handlers that are cancelled from now on no more than so many seconds to end."""
        self._calls.grace_period = min(grace_period, self._calls.grace_period)

    async def execute(self, received: ReceivedCommand) -> CommandResult:
        """
        Perform a command within participant_handler_timeout and participant_cancel_timeout seconds.

        Raises:
            InHand: another delivery has it, and nothing that this one did is kept.
            Away: the database is away, and nothing was done. Nothing else is raised, unless it is
                cancelled.
        """
        started_at = monotonic()
        command = received.command
        handler = self._handlers.get(command.name)
        if handler is None:
            text = f"No handler here is called {command.name}."
            result = _unsuccessful_result(Outcome.FAILED, Failure("unknown_command", text))
        else:
            result = await self._execute_with_timeout(handler, received)
        self._emit_handler_finished(received, handler, result, monotonic() - started_at)
        return result

    def give_up_waiting(self, received: ReceivedCommand) -> CommandResult:
        """Answer a command that another delivery has had in hand for too long."""
        self._emit_handler_finished(
            received, self._handlers.get(received.command.name), IN_PROGRESS_RESULT, 0.0
        )
        return IN_PROGRESS_RESULT

    async def _execute_with_timeout(
        self, handler: Handler, received: ReceivedCommand
    ) -> CommandResult:
        state = ExecutionState(received)
        time_limit = asyncio.timeout(self._settings.participant_handler_timeout)
        try:
            async with time_limit:
                return await self._execute_in_transaction(handler, state)
        except (CommandInProgress, CommandDeferred):
            raise
        except HandlerRolledBack as rolled_back:
            return rolled_back.result
        except asyncio.CancelledError:
            if state.handler_started:
                self._emit_handler_abandoned(state, "The process stops before it has ended.")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the command is answered
            if time_limit.expired():
                return self._result_of_timeout(state, error)
            return self._result_of_infrastructure_error(state, error)

    async def _execute_in_transaction(
        self, handler: Handler, state: ExecutionState
    ) -> CommandResult:
        command = state.received.command
        if self._database is None:
            return await self._call_handler(handler, state, None)
        compensates_local_action = (
            bool(handler.compensated_command) and command.direction is Direction.COMPENSATION
        )
        try:
            async with self._database.transaction() as tx:
                recorded_result = await barrier.claim_command(
                    tx, command, compensates_local_action=compensates_local_action
                )
                return recorded_result or await self._execute_claimed(handler, state, tx)
        except HandlerRolledBack as rolled_back:
            if rolled_back.result.outcome is not Outcome.REJECTED:
                raise
            result = rolled_back.result
        async with self._database.transaction() as tx:
            recorded_result = await barrier.claim_command(
                tx, command, compensates_local_action=compensates_local_action
            )
            if recorded_result is None:
                await barrier.record_result(tx, command, result)
            return recorded_result or result

    async def _execute_claimed(
        self, handler: Handler, state: ExecutionState, tx: AsyncConnection
    ) -> CommandResult:
        transaction = tx.get_transaction()
        result = await self._call_handler(handler, state, tx)
        if result.outcome is not Outcome.SUCCEEDED:
            raise HandlerRolledBack(result) from state.handler_error
        if transaction is None or not transaction.is_active:
            raise HandlerRolledBack(_TRANSACTION_ENDED)
        try:
            if await barrier.record_result(tx, state.received.command, result):
                return result
        except SQLAlchemyError as error:
            failure = _FAILURE_BY_SQLSTATE.get(sqlstate_of(error))
            if failure is None:
                raise
            raise HandlerRolledBack(_unsuccessful_result(Outcome.FAILED, failure)) from None
        raise HandlerRolledBack(_TRANSACTION_ENDED)

    async def _call_handler(
        self, handler: Handler, state: ExecutionState, tx: AsyncConnection | None
    ) -> CommandResult:
        """Have the handler do it, in a task of its own."""
        state.handler_started = True
        coroutine = self._handler_result(handler, state, tx)
        result = await self._calls.run(state.received, coroutine, state.set_abandoned_task)
        if state.handler_error is not None:
            self._emit_handler_failed(handler, state, tx)
        return result

    async def _handler_result(
        self, handler: Handler, state: ExecutionState, tx: AsyncConnection | None
    ) -> CommandResult:
        command = state.received.command
        try:
            return await self._run_handler(handler, command, tx)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            try:
                return self._result_of_handler_error(error, state)
            except BaseException as second_error:  # noqa: BLE001 - such as a codec that exits
                state.handler_error = second_error
                return _unsuccessful_result(
                    Outcome.FAILED, verdict.failure_of_exception(second_error)
                )

    def _result_of_handler_error(
        self, error: BaseException, state: ExecutionState
    ) -> CommandResult:
        handler_error = verdict.handler_error_in(error)
        if handler_error is None:
            state.handler_error = error
            return _unsuccessful_result(Outcome.FAILED, verdict.failure_of_exception(error))
        limits = body_limits(self._settings)
        outcome, failure = verdict.outcome_and_failure(handler_error, limits)
        run_id = str(state.received.command.run_id)
        result = _unsuccessful_result(outcome, self._encryption.encrypt_failure(failure, run_id))
        if find_violation(result.body, limits):  # sealing makes it longer
            result = _unsuccessful_result(outcome, verdict.failure_without_text(handler_error))
        return result

    async def _run_handler(
        self, handler: Handler, command: Command, tx: AsyncConnection | None
    ) -> CommandResult:
        """Have the handler do it: it sees the payload unsealed, nobody else its result."""
        step_ref = str(command.run_id), command.step, command.direction
        assert not isinstance(command.payload, bytes), "a command that arrived is decoded"
        try:
            payload = self._encryption.decrypt(command.payload, command_associated_data(*step_ref))
            if payload is not command.payload:
                command = replace(command, payload=payload)
            returned = await handler(command, tx)
            body = write_json(self._encryption.encrypt(returned, reply_associated_data(*step_ref)))
        except EncryptionError as error:
            raise Failed(
                EngineFailureCode.DECRYPTION_FAILED, f"What it asks or gives {error}."
            ) from None
        problem = find_violation(body, body_limits(self._settings))
        if problem:  # before the commit: the engine would refuse to read that the step was done
            raise Failed("invalid_result", f"The result is too large. {problem.message}")
        return CommandResult(Outcome.SUCCEEDED, body)

    def _result_of_timeout(self, state: ExecutionState, error: Exception) -> CommandResult:
        """Answer a command whose time is over; nothing of its transaction is kept."""
        seconds = f"{self._settings.participant_handler_timeout:g} s"
        if not state.handler_started and self.outage_monitor is not None:
            self.outage_monitor.report(error)
            raise CommandDeferred
        if state.abandoned_task is not None:
            self._emit_handler_abandoned(
                state, "It ignores its cancellation, and keeps its place until it ends."
            )
        text = f"The handler took longer than participant_handler_timeout, {seconds}."
        return replace(
            _unsuccessful_result(Outcome.FAILED, Failure("timeout", text)),
            abandoned_task=state.abandoned_task,
        )

    def _result_of_infrastructure_error(
        self, state: ExecutionState, error: Exception
    ) -> CommandResult:
        """Answer a command that met trouble of the database, or a bug, outside its handler."""
        failure = verdict.failure_of_exception(error)
        if isinstance(error, PoolTimeoutError) and not state.handler_started:
            raise CommandDeferred  # its handlers have all connections: it comes again
        if is_unavailable(error) and self.outage_monitor is not None:
            self.outage_monitor.report(error)
            if not state.handler_started:
                raise CommandDeferred
        elif isinstance(error, SQLAlchemyError | OSError) or sqlstate_of(error):
            if self._throttle.record(Operation.PARTICIPANT, failure.code) is not None:
                problem = (
                    self.outage_monitor.describe_error(error)
                    if self.outage_monitor
                    else failure.message
                )
                self._emit(DatabaseUnavailable(operation=Operation.PARTICIPANT, problem=problem))
        else:
            run_id = str(state.received.command.run_id)
            problem = verdict.class_and_location(error)
            self._emit(
                InternalErrorCaught(operation=Operation.PARTICIPANT, problem=problem, run_id=run_id)
            )
        return _unsuccessful_result(Outcome.FAILED, failure)

    def _emit_handler_failed(
        self, handler: Handler, state: ExecutionState, tx: AsyncConnection | None
    ) -> None:
        """Report what a handler raised, unless that is trouble of our database."""
        error = state.handler_error
        assert error is not None, "it has raised something"
        if tx is not None and tx.invalidated and self.outage_monitor is not None:
            self.outage_monitor.report(error)
            return
        problem, code = (
            verdict.class_and_location(error, handler.source_file),
            verdict.failure_of_exception(error).code,
        )
        suppressed_count = self._throttle.record(handler.command_name, code, problem)
        self._emit(
            HandlerFailed(
                code=code,
                problem=problem,
                suppressed_count=suppressed_count or None,
                throttled=True if suppressed_count is None else None,
                **_event_fields(state.received),
            )
        )

    def _emit_handler_abandoned(self, state: ExecutionState, problem: str) -> None:
        running = state.abandoned_task is not None
        self._emit(
            HandlerAbandoned(
                problem=problem, still_running=running, **_event_fields(state.received)
            )
        )

    def _emit_handler_finished(
        self,
        received: ReceivedCommand,
        handler: Handler | None,
        result: CommandResult,
        seconds: float,
    ) -> None:
        command = received.command
        name = handler.command_name if handler else "unknown"
        run_id = str(command.run_id)
        if result.barrier_case:
            barrier_event = BarrierHit(
                command=name,
                reason=result.barrier_case,
                run_id=run_id,
                message_id=received.message_id,
            )
            self._emit(barrier_event)
        self._emit(
            HandlerFinished(
                outcome=result.outcome,
                duration_s=seconds,
                code=verdict.failure_code_in(result.body, result.outcome),
                **(_event_fields(received) | {"command": name}),
            )
        )


def _event_fields(received: ReceivedCommand) -> dict[str, Any]:
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


def _unsuccessful_result(outcome: Outcome, failure: Failure) -> CommandResult:
    return CommandResult(outcome, write_json(failure_json(failure)))


_TRANSACTION_ENDED = _unsuccessful_result(
    Outcome.FAILED, Failure("transaction_ended", "The handler ended its transaction itself.")
)
_FAILURE_BY_SQLSTATE = {
    "25P02": Failure(
        "transaction_failed",
        "A statement of the handler failed, and its transaction with it. Let the error leave the"
        " handler, or use tx.begin_nested().",
    ),
    "25006": Failure("transaction_read_only", "The handler made its transaction read-only."),
}
