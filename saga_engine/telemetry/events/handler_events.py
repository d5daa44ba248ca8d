"""Telemetry events about a participant's handlers and its barrier."""

from dataclasses import dataclass

from saga_engine.vocabulary import BarrierResult, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlersRegistered:
    """A participant has handlers for these commands."""

    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFinished:
    """
    A participant processed a command; `outcome` is that of its reply. The ids are the sender's.

    `code` is that of a rejection or failure: the handler's author chose it, or it is the name of an
    exception class.
    """

    command: str
    outcome: Outcome
    duration_s: float
    code: str = ""
    run_id: str = ""
    saga: str = ""
    step: str = ""
    attempt: int | None = None
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed:
    """
    A handler raised an exception other than `Rejected` and `Failed`.

    `problem` has the class and location of the exception, not its text. `throttled`: the same
    failure was logged less than `log_throttle_interval` seconds ago. `suppressed_count` counts the
    throttled ones since the last one that was not.
    """

    command: str
    code: str
    problem: str
    run_id: str = ""
    saga: str = ""
    step: str = ""
    attempt: int | None = None
    message_id: str = ""
    correlation_id: str = ""
    suppressed_count: int | None = None
    throttled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerAbandoned:
    """
    A handler was cancelled, and the participant no longer waits for it; `problem` says why.

    `still_running`: the handler ignored the cancellation.
    """

    command: str
    problem: str
    still_running: bool
    run_id: str = ""
    saga: str = ""
    step: str = ""
    attempt: int | None = None
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierHit:
    """The barrier replied to a command instead of the handler; `reason` says why."""

    command: str
    reason: BarrierResult
    run_id: str = ""
    message_id: str = ""
