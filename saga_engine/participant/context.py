"""What a handler may know of the command it performs, beside its payload."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Direction


@dataclass(frozen=True, slots=True)
class CommandContext:
    """
    The envelope of one command.

    Args:
        command: the command's name.
        run_id: the run that sends it.
        saga: the name of the run's saga.
        step: the step that sends it.
        attempt: which send of the same command this is, from 1.
        direction: the step's action, or its compensation.
        idempotency_key: the same whenever the same command is sent again: pass it on to what the
            handler calls.
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
        """The context of a command that arrived."""
        return cls(
            command=command.name,
            run_id=command.run_id,
            saga=command.saga,
            step=command.step,
            attempt=command.attempt,
            direction=command.direction,
            idempotency_key=command.idempotency_key,
            deadline=command.deadline,
        )
