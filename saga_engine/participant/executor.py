"""
Executing one command, from its receipt to its result. Every command gets a result.

The user's code runs in a task of its own (`handler_calls`); what it raises becomes a result there
(`handler_runner`). So nothing here depends on what a handler does to its task.

With a database, one transaction claims the barrier's row, runs the handler and records the result.
A rejection rolls it back with everything the handler wrote, and is recorded in a second
transaction. If another delivery of the command was executed in between, its result counts, so that
a command has only one result. A failure is rolled back and not recorded: a retry is possible.
"""

import asyncio
from collections.abc import Mapping
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from saga_engine.participant import barrier, failures
from saga_engine.participant.barrier import IN_PROGRESS_RESULT, CommandInProgress, CommandResult
from saga_engine.participant.batch_executor import BatchExecutor
from saga_engine.participant.execution_events import ExecutionEvents
from saga_engine.participant.failure_codes import FailureCode
from saga_engine.participant.handler import Handler
from saga_engine.participant.handler_calls import HandlerCalls
from saga_engine.participant.handler_runner import (
    ExecutionState,
    HandlerRunner,
    timeout_result,
    unsuccessful_result,
)
from saga_engine.participant.interfaces import (
    BatchDatabase,
    CommandDatabase,
    CommandTransaction,
    HandlerRolledBack,
)
from saga_engine.participant.outage import CommandDeferred, OutageMonitor
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.postgres.sqlalchemy_errors import is_unavailable, sqlstate_of
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.telemetry.throttle import Throttle
from saga_engine.vocabulary import Direction, Failure, Outcome


class Executor:
    """
    Executes the commands of one participant, any number at once.

    Args:
        handlers: by command.
        database: of the barrier; without it handlers are called outside a transaction.
        settings: timeouts and limits.
        emit: receives telemetry.
        encryption: decrypts payloads, and encrypts results.
        outage_monitor: where commands wait while the database is unavailable; without it they fail.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        database: CommandDatabase | None,
        settings: Settings,
        emit: Observer,
        encryption: PayloadEncryption = NO_ENCRYPTION,
        outage_monitor: OutageMonitor | None = None,
    ) -> None:
        self._handlers = handlers
        self._database = database
        self._settings = settings
        self._emit = emit
        self._calls = HandlerCalls(settings.participant_cancel_timeout)
        self._runner = HandlerRunner(settings, encryption)
        self._throttle = Throttle(
            settings.log_throttle_interval, clock=lambda: asyncio.get_running_loop().time()
        )
        self._events = ExecutionEvents(emit, self._throttle)
        self.outage_monitor = outage_monitor
        self.batch_executor: BatchExecutor | None = None

    def enable_batches(self, database: BatchDatabase) -> None:
        """Let commands that arrive together share a transaction of the database of this object."""
        self.batch_executor = BatchExecutor(
            handlers=self._handlers,
            database=database,
            calls=self._calls,
            runner=self._runner,
            events=self._events,
            settings=self._settings,
            outage_monitor=self.outage_monitor,
        )

    @property
    def is_database_unavailable(self) -> bool:
        """Whether the database is unavailable, so that no command can be started."""
        return self.outage_monitor is not None and bool(self.outage_monitor.problem)

    def shorten_grace_period(self, grace_period: float) -> None:
        """Limit the seconds that handlers cancelled from now on have to end."""
        self._calls.grace_period = min(grace_period, self._calls.grace_period)

    async def execute(self, received: ReceivedCommand) -> CommandResult:
        """
        Execute a command within participant_handler_timeout and participant_cancel_timeout seconds.

        Raises:
            CommandInProgress: another delivery is being executed; this one had no effect.
            CommandDeferred: the database is unavailable; this delivery had no effect. Nothing else
                is raised, unless the caller is cancelled.
        """
        started_at = monotonic()
        command = received.command
        handler = self._handlers.get(command.name)
        if handler is None:
            text = f"This participant has no handler for {command.name}."
            failure = Failure(FailureCode.UNKNOWN_COMMAND, text)
            result = unsuccessful_result(Outcome.FAILED, failure)
        else:
            result = await self._execute_with_timeout(handler, received)
        self._events.command_finished(received, handler, result, monotonic() - started_at)
        return result

    def give_up_waiting(self, received: ReceivedCommand) -> CommandResult:
        """Return the result of a command whose other delivery took too long."""
        handler = self._handlers.get(received.command.name)
        self._events.command_finished(received, handler, IN_PROGRESS_RESULT, 0.0)
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
                problem = "The process stops before the handler has ended."
                self._events.handler_abandoned(state, problem)
            raise
        except Exception as error:  # noqa: BLE001 - the command gets a reply for every error
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
                    tx.barrier, command, compensates_local_action=compensates_local_action
                )
                return recorded_result or await self._execute_claimed(handler, state, tx)
        except HandlerRolledBack as rolled_back:
            if rolled_back.result.outcome is not Outcome.REJECTED:
                raise
            result = rolled_back.result
        async with self._database.transaction() as tx:
            recorded_result = await barrier.claim_command(
                tx.barrier, command, compensates_local_action=compensates_local_action
            )
            if recorded_result is None:
                await tx.commit_result(command, result)
            return recorded_result or result

    async def _execute_claimed(
        self, handler: Handler, state: ExecutionState, tx: CommandTransaction
    ) -> CommandResult:
        result = await self._call_handler(handler, state, tx)
        if result.outcome is not Outcome.SUCCEEDED:
            raise HandlerRolledBack(result) from state.handler_error
        if not tx.is_active:
            raise HandlerRolledBack(_TRANSACTION_ENDED)
        try:
            if await tx.commit_result(state.received.command, result):
                return result
        except Exception as error:
            failure = _FAILURE_BY_SQLSTATE.get(sqlstate_of(error))
            if failure is None:
                raise
            raise HandlerRolledBack(unsuccessful_result(Outcome.FAILED, failure)) from None
        raise HandlerRolledBack(_TRANSACTION_ENDED)

    async def _call_handler(
        self, handler: Handler, state: ExecutionState, tx: CommandTransaction | None
    ) -> CommandResult:
        """Call the handler in a task of its own."""
        state.handler_started = True
        connection = tx.connection if tx and handler.takes_connection else None
        coroutine = self._runner.run(handler, state, connection)
        result = await self._calls.run(state.received, coroutine, state.set_abandoned_task)
        if state.handler_error is not None:
            if tx is not None and tx.is_connection_lost and self.outage_monitor is not None:
                self.outage_monitor.report(state.handler_error)  # the database, not the handler
            else:
                self._events.handler_failed(handler, state)
        return result

    def _result_of_timeout(self, state: ExecutionState, error: Exception) -> CommandResult:
        """Make the result of a command that timed out; its transaction was rolled back."""
        if not state.handler_started and self.outage_monitor is not None:
            self.outage_monitor.report(error)
            raise CommandDeferred
        if state.abandoned_task is not None:
            self._events.handler_ignores_cancellation(state)
        return timeout_result(self._settings.participant_handler_timeout, state.abandoned_task)

    def _result_of_infrastructure_error(
        self, state: ExecutionState, error: Exception
    ) -> CommandResult:
        """Make the result of a command that failed outside its handler: the database, or a bug."""
        failure = failures.failure_of_exception(error)
        if isinstance(error, PoolTimeoutError) and not state.handler_started:
            raise CommandDeferred  # the user's engine has no free connection: try again
        if is_unavailable(error) and self.outage_monitor is not None:
            self.outage_monitor.report(error)
            if not state.handler_started:
                raise CommandDeferred
        elif _is_of_the_database(error):
            if self._throttle.record(Operation.PARTICIPANT, failure.code) is not None:
                problem = (
                    self.outage_monitor.describe_error(error)
                    if self.outage_monitor
                    else failure.message
                )
                self._emit(DatabaseUnavailable(operation=Operation.PARTICIPANT, problem=problem))
        else:
            self._emit(
                InternalErrorCaught(
                    operation=Operation.PARTICIPANT,
                    problem=failures.class_and_location(error),
                    run_id=state.received.command.run_id,
                )
            )
        return unsuccessful_result(Outcome.FAILED, failure)


def _is_of_the_database(error: Exception) -> bool:
    kinds = SQLAlchemyError | OSError
    return isinstance(error, kinds) or bool(sqlstate_of(error)) or is_unavailable(error)


_TRANSACTION_ENDED = unsuccessful_result(
    Outcome.FAILED,
    Failure(FailureCode.TRANSACTION_ENDED, "The handler ended its transaction itself."),
)
_FAILURE_BY_SQLSTATE = {
    "25P02": Failure(
        FailureCode.TRANSACTION_FAILED,
        "A statement of the handler failed, and its transaction with it. Let the error leave the"
        " handler, or use tx.begin_nested().",
    ),
    "25006": Failure(
        FailureCode.TRANSACTION_READ_ONLY, "The handler made its transaction read-only."
    ),
}
