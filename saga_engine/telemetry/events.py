"""
What happened, told once: frozen records handed to plain callables.

The engine and the participant kit never log or count by themselves; `logs` and `metrics` are two
observers of facts, tests are a third. A fact carries ids and sizes, never a payload, a password or
a key; text of others is in `problem` only, which is never a label. Durations are seconds.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from saga_engine.errors import SagaEngineError
from saga_engine.payload.guard import class_name
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import Direction, Outcome, Resolution, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionRegistered:
    """This process knows a saga: its step names in order."""

    saga: str
    version: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlersRegistered:
    """This participant performs these commands."""

    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was accepted."""

    saga: str
    version: int
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCompensating:
    """A run turned back; `cause` is the code of `saga.run.Cause`, `step` the one that caused it."""

    saga: str
    version: int
    run_id: str
    cause: str
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """A run came to an end that `status` names, `duration_s` after it was started."""

    saga: str
    version: int
    run_id: str
    status: Status
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSent:
    """A command was ordered. It is committed, and leaves with this batch or with a sweep."""

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """
    What became of an attempt, `duration_s` after it was sent (None: not known).

    `outcome` unknown: no reply in time. The ids are the reply's, and empty without one.
    """

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    outcome: Outcome
    duration_s: float | None = None
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """Attempt number `attempt` came to nothing and is followed by another after `delay_s`."""

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened:
    """A run cannot go on without a person; `cause` is a code fixed in the core."""

    saga: str
    step: str
    direction: Direction
    run_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentResolved:
    """A person acted; `resolution` is None where events made the question pointless."""

    saga: str
    step: str
    direction: Direction
    run_id: str
    resolution: Resolution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActionProcessed:
    """A request (cancel, a resolution, redrive, discard) was done or refused."""

    action: str
    accepted: bool
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageIgnored:
    """A message changed nothing, which is normal; `reason`: duplicate, late or foreign."""

    reason: str
    saga: str = ""
    run_id: str = ""
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeld:
    """A message waits in PostgreSQL for a worker that has its run's definition."""

    saga: str
    version: int | None
    run_id: str
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeadLettered:
    """A message was set aside; `queue` is the one we took it from, `reason` a code fixed here."""

    queue: str
    reason: str
    problem: str = ""
    run_id: str = ""
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProcessed:
    """One transaction's worth of triggers: decided and written, then committed, then published."""

    triggers: int
    decide_s: float
    commit_s: float
    publish_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesPublished:
    """What the broker said of `messages` publishes: confirmed, returned, nacked or unknown."""

    exchange: str
    outcome: str
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesConsumed:
    """Messages that arrived together from one queue; `redelivered` of them not the first time."""

    queue: str
    messages: int
    redelivered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnectionChanged:
    """
    A link changed (`role`: publish, consume; `phase`: connecting, connected, blocked, closed).

    `epoch` counts its connections from 1. `problem` is empty when it works.
    """

    connection: str
    state: str
    generation: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUnavailable:
    """An `operation` met a database that is away or refuses, and is tried again."""

    operation: Operation
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalErrorCaught:
    """A bug of ours, or of a mapping, was contained; `operation` is where, `problem` what."""

    operation: Operation
    problem: str
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeFailed:
    """
    A mapping function, or the type of a payload, raised or was interrupted.

    `function` is its name, `problem` the class of an exception and its place, without its text.
    """

    saga: str
    run_id: str
    function: str
    problem: str
    step: str = ""
    direction: Direction | None = None
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeHung:
    """
    Such code did not return after `limit_s` and could not be interrupted: the process is ended.

    `recorded`: the database knows, so that the next worker takes that run alone.
    """

    saga: str
    run_id: str
    function: str
    limit_s: float
    recorded: bool
    step: str = ""
    direction: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodeContained:
    """
    Code of a user tried to stop more than its own work, and was not let.

    `problem` says what it did. The names are those of the mapping or the command, and empty where
    it is not known which one it was. `repeats` counts those since the last line of the same kind.
    """

    problem: str
    saga: str = ""
    run_id: str = ""
    step: str = ""
    command: str = ""
    function: str = ""
    suppressed_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogLost:
    """The process beside this one, its overseer, is gone or could not be started."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogRestarted:
    """There is an overseer again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRecovered:
    """The database of a participant works again, `outage_s` after it was found to be away."""

    operation: Operation
    outage_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReady:
    """A `program` (worker or participant) takes messages from now on."""

    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopping:
    """A `program` was told to stop: it takes nothing new and finishes what is in hand."""

    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopped:
    """A `program` ended; `clean` when nothing in hand was left behind."""

    program: str
    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFinished:
    """
    A participant performed a command; `outcome` is what it replied. The ids are the sender's.

    `code` is that of a rejection or a failure: a word of the handler's author, or a class's name.
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
    A handler raised what is not a refusal: `problem` is the class and its place, never the text.

    `again`: the same was reported less than `log_throttle_interval` seconds ago. `repeats` counts
    those since the last one that was not.
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
    A handler was cancelled, and its command is not waited for any more.

    `running`: it ignores that, and goes on. `problem` says why it was cancelled.
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
    """The barrier answered in the handler's place; `case`: repeated, empty, refused or in_hand."""

    command: str
    result: str
    run_id: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogCounted:
    """What is in PostgreSQL: the same for every worker, so aggregate with max, never sum."""

    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by saga and status
    oldest_run_age_s: Mapping[str, float] = field(default_factory=dict)  # by saga
    incidents_open: Mapping[tuple[str, str, str], int] = field(  # by saga, cause and step
        default_factory=dict
    )
    dead_letters_open: Mapping[str, int] = field(default_factory=dict)  # by reason
    messages_awaiting_definition: int = 0
    starts_awaiting_admission: Mapping[str, int] = field(default_factory=dict)  # by saga
    starts_stranded: Mapping[str, int] = field(default_factory=dict)  # by saga
    crash_suspects: int = 0
    outbox_pending: int = 0
    outbox_oldest_age_s: float = 0.0
    timers_pending: int = 0
    timer_overdue_s: float = 0.0
    runs_in_default_partition: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLoopLagMeasured:
    """The event loop came round `lag_s` later than it was asked to."""

    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailed:
    """An observer raised: told to the others, once for each observer that does."""

    observer: str
    problem: str


TelemetryEvent: TypeAlias = (
    DefinitionRegistered | HandlersRegistered
    | RunStarted | RunCompensating | RunFinished
    | AttemptSent | AttemptFinished | RetryScheduled
    | IncidentOpened | IncidentResolved | OperatorActionProcessed
    | MessageIgnored | MessageHeld | MessageDeadLettered
    | BatchProcessed | MessagesPublished | MessagesConsumed
    | BrokerConnectionChanged | DatabaseUnavailable | DatabaseRecovered | InternalErrorCaught
    | UserCodeFailed | UserCodeHung | UserCodeContained | WatchdogLost | WatchdogRestarted
    | ProcessReady | ProcessStopping | ProcessStopped
    | HandlerFinished | HandlerFailed | HandlerAbandoned | BarrierHit
    | BacklogCounted | EventLoopLagMeasured | ObserverFailed
)  # fmt: skip

Observer: TypeAlias = Callable[[TelemetryEvent], None]


class Emitter:
    """Hand each fact to every observer, in order. `Tell()` tells nobody."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._failed_observers: set[int] = set()

    def __call__(self, event: TelemetryEvent) -> None:
        """Tell *fact*; an observer that raises harms neither the caller nor other observers."""
        for index, observer in enumerate(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - watching never harms what is watched
                if index not in self._failed_observers:
                    self._failed_observers.add(index)
                    name = getattr(observer, "__qualname__", type(observer).__qualname__)
                    self(ObserverFailed(observer=name, problem=describe_error(error)))


def describe_error(error: BaseException) -> str:
    """An exception as a `problem`; foreign text stays out, it may quote a row or a payload."""
    if isinstance(error, SagaEngineError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    location = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return class_name(error) + location
