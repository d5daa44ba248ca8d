"""
One handler's call, turned into a result: what it returns, or the failure that its exception means.

With a codec the handler gets the payload decrypted, and its result is encrypted before the barrier
records it: the barrier's row shows no more than the message at the broker.
"""

from dataclasses import dataclass, replace

from saga_engine.message_context import MessageContext, handling
from saga_engine.participant import failures
from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.failure_codes import FailureCode
from saga_engine.participant.handler import Handler
from saga_engine.participant.handler_calls import Task
from saga_engine.payload.encryption import (
    EncryptionError,
    PayloadEncryption,
    command_associated_data,
    reply_associated_data,
)
from saga_engine.payload.limits import find_violation
from saga_engine.protocol.body import write_json
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.rejection import Failed
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, EngineFailureCode, Failure, Outcome


@dataclass(slots=True)
class ExecutionState:
    """
    The progress of one command.

    Args:
        received: the command.
        handler_started: whether its handler was called.
        handler_error: what the handler raised, if that is neither Rejected nor Failed.
        abandoned_task: the task of a handler that still runs after it was cancelled.
    """

    received: ReceivedCommand
    handler_started: bool = False
    handler_error: BaseException | None = None
    abandoned_task: Task | None = None

    def set_abandoned_task(self, task: Task) -> None:
        """Record that the handler still runs after it was cancelled."""
        self.abandoned_task = task


class HandlerRunner:
    """Runs handlers, and returns a result for everything that they raise."""

    def __init__(self, settings: Settings, encryption: PayloadEncryption) -> None:
        self._limits = body_limits(settings)
        self._encryption = encryption

    async def run(
        self, handler: Handler, state: ExecutionState, connection: object
    ) -> CommandResult:
        """Call the handler. An exception of the handler becomes a result."""
        try:
            return await self._call(handler, state.received.command, connection)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            try:
                return self._result_of_error(error, state)
            except BaseException as second_error:  # noqa: BLE001 - such as a codec that exits
                state.handler_error = second_error
                failure = failures.failure_of_exception(second_error)
                return unsuccessful_result(Outcome.FAILED, failure)

    async def _call(self, handler: Handler, command: Command, connection: object) -> CommandResult:
        step_ref = command.run_id, command.step, command.direction
        try:
            payload = self._encryption.decrypt(command.payload, command_associated_data(*step_ref))
            if payload is not command.payload:
                command = replace(command, payload=payload)
            with handling(message_context(command)):
                returned = await handler(command, connection)
            body = write_json(self._encryption.encrypt(returned, reply_associated_data(*step_ref)))
        except EncryptionError as error:
            raise Failed(
                EngineFailureCode.DECRYPTION_FAILED, f"The command's payload or result {error}."
            ) from None
        problem = find_violation(body, self._limits)
        if problem:  # before the commit: the engine would refuse to read the reply
            raise Failed(FailureCode.INVALID_RESULT, f"The result is too large. {problem.message}")
        return CommandResult(Outcome.SUCCEEDED, body)

    def _result_of_error(self, error: BaseException, state: ExecutionState) -> CommandResult:
        handler_error = failures.handler_error_in(error)
        if handler_error is None:
            state.handler_error = error
            return unsuccessful_result(Outcome.FAILED, failures.failure_of_exception(error))
        outcome, failure = failures.outcome_and_failure(handler_error, self._limits)
        run_id = state.received.command.run_id
        result = unsuccessful_result(outcome, self._encryption.encrypt_failure(failure, run_id))
        if find_violation(result.body, self._limits):  # encryption makes it longer
            result = unsuccessful_result(outcome, failures.failure_without_text(handler_error))
        return result


def message_context(command: Command) -> MessageContext:
    """Say where events come from that a command causes: its run, itself, its saga."""
    return MessageContext(
        correlation_id=command.run_id, causation_id=command.idempotency_key, actor=command.saga
    )


def unsuccessful_result(outcome: Outcome, failure: Failure) -> CommandResult:
    """Make the result of a command that was rejected or failed."""
    return CommandResult(outcome, write_json(failure_json(failure)))


def timeout_result(seconds: float, abandoned_task: Task | None) -> CommandResult:
    """
    Make the result of a command whose handler took longer than participant_handler_timeout.

    Args:
        seconds: that setting.
        abandoned_task: the task of the handler, if it still runs.
    """
    text = f"The handler took longer than participant_handler_timeout, {seconds:g} s."
    result = unsuccessful_result(Outcome.FAILED, Failure(FailureCode.TIMEOUT, text))
    return replace(result, abandoned_task=abandoned_task)
