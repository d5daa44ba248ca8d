"""Telemetry about the execution of commands: what the handlers of one participant do."""

from typing import Any

from saga_engine.participant import failures
from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.handler import Handler
from saga_engine.participant.handler_runner import ExecutionState
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.telemetry.events import (
    BarrierHit,
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
    Observer,
)
from saga_engine.telemetry.throttle import Throttle

UNKNOWN_COMMAND_LABEL = "unknown"
"""The name of a command that has no handler, in telemetry: a sender can choose any name."""


class ExecutionEvents:
    """Emits the events of one participant. Equal handler failures are throttled."""

    def __init__(self, emit: Observer, throttle: Throttle) -> None:
        self._emit = emit
        self._throttle = throttle

    def handler_failed(self, handler: Handler, state: ExecutionState) -> None:
        """Emit what a handler raised."""
        error = state.handler_error
        assert error is not None, "the handler raised it"
        problem = failures.class_and_location(error, handler.source_file)
        code = failures.failure_of_exception(error).code
        suppressed_count = self._throttle.record(handler.command_name, code, problem)
        self._emit(
            HandlerFailed(
                code=code,
                problem=problem,
                suppressed_count=suppressed_count or None,
                throttled=True if suppressed_count is None else None,
                **_command_fields(state.received),
            )
        )

    def handler_abandoned(self, state: ExecutionState, problem: str) -> None:
        """Emit that a handler was cancelled and is not waited for."""
        running = state.abandoned_task is not None
        self._emit(
            HandlerAbandoned(
                problem=problem, still_running=running, **_command_fields(state.received)
            )
        )

    def handler_ignores_cancellation(self, state: ExecutionState) -> None:
        """Emit that a handler still runs after its timeout."""
        self.handler_abandoned(
            state, "It ignores its cancellation, and keeps its slot until it ends."
        )

    def command_finished(
        self,
        received: ReceivedCommand,
        handler: Handler | None,
        result: CommandResult,
        duration: float,
    ) -> None:
        """Emit the result of a command, and whether the barrier gave it."""
        name = handler.command_name if handler else UNKNOWN_COMMAND_LABEL
        if result.barrier_result:
            self._emit(
                BarrierHit(
                    command=name,
                    reason=result.barrier_result,
                    run_id=received.command.run_id,
                    message_id=received.message_id,
                )
            )
        self._emit(
            HandlerFinished(
                outcome=result.outcome,
                duration_s=duration,
                code=failures.failure_code_in(result.body, result.outcome),
                **(_command_fields(received) | {"command": name}),
            )
        )


def _command_fields(received: ReceivedCommand) -> dict[str, Any]:
    """The fields of an event that identify the command."""
    command = received.command
    return {
        "command": command.name,
        "run_id": command.run_id,
        "saga": command.saga,
        "step": command.step,
        "attempt": command.attempt,
        "message_id": received.message_id,
        "correlation_id": received.correlation_id,
    }
