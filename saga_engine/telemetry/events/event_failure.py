"""What is reported of an event that a reader of the log cannot process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFailure:
    """
    An event that waits for an operator, because what reads the log cannot process it.

    The telemetry event of each kind of reader adds which one it is.

    Args:
        position: of the event.
        stream: of the event.
        event_type: of the event.
        problem: why, and whose fault it is; never a value of the event.
        next_command: the command that shows it in full.
    """

    position: int
    stream: str
    event_type: str
    problem: str
    next_command: str
