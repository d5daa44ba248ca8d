"""What a handler can know about its command, in addition to the payload."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from saga_engine.vocabulary import Command, Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """
    The envelope of one command.

    Args:
        command: the command's name.
        run_id: the run that sends it.
        saga: the name of the run's saga.
        step: the step that sends it.
        attempt: the number of times that the engine has sent this command, from 1.
        direction: the step's action, or its compensation.
        idempotency_key: the same for each send of the same command: pass it on to the services
            that the handler calls.
        deadline: when the engine stops waiting for this attempt, by the engine's clock.
    """

    command: str
    run_id: UUID
    saga: str
    step: str
    attempt: int
    direction: Direction
    idempotency_key: str
    deadline: datetime

    @classmethod
    def from_command(cls, command: Command) -> Self:
        """Make the context of a received command."""
        return cls(
            command=command.name,
            run_id=UUID(command.run_id),
            saga=command.saga,
            step=command.step,
            attempt=command.attempt,
            direction=command.direction,
            idempotency_key=command.idempotency_key,
            deadline=command.deadline,
        )
