"""
Every error of saga-engine, and whose fault it is.

    SagaEngineError
    ├── DefinitionError      the author's code breaks a rule      -> fix the declaration it names
    ├── ConfigurationError   a setting is missing or wrong        -> change the setting it names
    ├── InvalidInput         the caller's data does not fit       -> correct it
    ├── NotFound             no such run, incident, dead letter   -> check the id
    │   └── NotStarted           requested, and waits for a worker    -> ask again, do not start it
    ├── Conflict             not possible in this state           -> check the state it names
    │   ├── WrongVersion         another append was first             -> read it, decide again
    │   └── TooManySchemas       an event or message has too many     -> see why its class changes
    ├── TimedOut             no answer in time                    -> ask again
    ├── UnreadableEvent      this code cannot read a stored event -> deploy code that can
    ├── DecisionFailed       a command's function has a bug       -> correct the function it names
    ├── StoreError           PostgreSQL refused or is out of reach
    │   ├── StoreUnavailable     try again later; nothing is known of the transaction
    │   │   ├── StoreLockTimeout     another transaction holds a row; nothing was written
    │   │   └── SerializationFailure another transaction was first: repeat the whole transaction
    │   ├── StoreReadTooLarge    more than one transaction may read; read fewer runs
    │   ├── StoreRefused         the data can never be stored; dead-letter it
    │   └── SchemaMismatch       run `saga-engine migrate`
    ├── HandlersStuck        a participant's handlers do not end   -> correct them, start it again
    ├── ProcessCancelled     user code cancelled the main task    -> correct it, start it again
    └── BrokerError          RabbitMQ refused or is out of reach
        ├── BrokerUnavailable    try again later; a publish may have happened
        └── TopologyMismatch     a queue or exchange exists with other arguments

Each is built from data and keeps it; its text names the thing, the problem and the next step.
A late or repeated message is never an error: it is a decision without effects. `exit_code` is what
the command line leaves with (see docs/cli.md); any other exception is a bug of saga-engine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar, TypeVar

Result = TypeVar("Result")


class SagaEngineError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class DefinitionError(SagaEngineError):
    """A declaration breaks a rule: `location` is its `file:line`, `fix` the remedy."""

    exit_code = 2

    def __init__(self, problem: str, *, location: str, fix: str) -> None:
        super().__init__(f"{location}: {problem} {fix}")
        self.problem = problem
        self.location = location
        self.fix = fix


class ConfigurationError(SagaEngineError):
    """A setting, a module or an argument is missing or wrong; the text says what to do."""

    exit_code = 2


class InvalidInput(SagaEngineError):
    """What was given does not fit the saga's types, or can never be sent or stored."""

    exit_code = 2


class NotFound(SagaEngineError):
    """No run, incident or dead letter has that id."""

    exit_code = 3


class NotStarted(NotFound):
    """
    The run was requested, and starts automatically as soon as a worker accepts its start.

    A second start with another id would execute it twice.
    """


class Conflict(SagaEngineError):
    """The request contradicts the current state: another input for a key, a finished run."""

    exit_code = 4


class WrongVersion(Conflict):
    """
    A stream is not what an append expected. Nothing was appended, to no stream.

    Args:
        stream: its name.
        expected: the version that the append expected, or `new` or `existing`.
        actual: the version of its last event; 0 if it has none.
    """

    def __init__(self, stream: str, expected: int | str, actual: int) -> None:
        is_number = isinstance(expected, int)
        expectation = f"version {expected}" if is_number else f"a stream that is {expected}"
        super().__init__(
            f"Stream {stream!r} is at version {actual}; the append expected {expectation}. Read the"
            " stream, decide again, and append with the version that was read."
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class TooManySchemas(Conflict):
    """An event, a command or a reply would have more than `max_schema_versions` schemas."""

    def __init__(self, subject: str, limit: int) -> None:
        self.subject = subject
        self.problem = (
            f"{subject} would have more than {limit} registered schemas (max_schema_versions)."
        )
        self.fix = (
            "Make sure that its class is the same each time it is loaded, or raise the setting."
        )
        super().__init__(f"{self.problem} {self.fix}")


class TimedOut(SagaEngineError, TimeoutError):
    """The timeout is over. The request may still be executed; it is safe to ask again."""

    exit_code = 124


class UnreadableEvent(SagaEngineError):
    """
    A stored event that this code does not know, cannot read or cannot apply.

    Only the call that needs the event fails. Stored events are not changed: the code is.
    """

    exit_code = 2

    def __init__(
        self, *, stream: str, version: int, event_type: str, problem: str, fix: str
    ) -> None:
        super().__init__(f"Event {version} of {stream}, {event_type!r}: {problem}. {fix}")
        self.stream = stream
        self.version = version
        self.event_type = event_type
        self.problem = problem
        self.fix = fix


class DecisionFailed(SagaEngineError):
    """
    The function of a command failed, or its events cannot be stored. Nothing was appended.

    A business rejection is `Rejected` instead.
    """

    exit_code = 2

    def __init__(self, command: str, *, location: str, problem: str, fix: str) -> None:
        super().__init__(f"{location}: Command {command} {problem}. {fix}")
        self.command = command
        self.location = location
        self.problem = problem
        self.fix = fix


class StoreError(SagaEngineError):
    """PostgreSQL refused, or did not answer."""

    exit_code = 5


class StoreUnavailable(StoreError):
    """Out of reach, or cut off. Whether a COMMIT happened is unknown: look by key."""


class StoreLockTimeout(StoreUnavailable):
    """Another transaction holds a row that is needed. Nothing was written; defer and try again."""


class StoreReadTooLarge(StoreError):
    """The runs exceed what one transaction may read. Nothing was written; read fewer."""


class SerializationFailure(StoreUnavailable):
    """
    Another transaction was first (SQLSTATE 40001, or 40P01: a deadlock); this one is rolled back.

    The caller repeats its own transaction from its beginning. That happens at REPEATABLE READ and
    SERIALIZABLE; a deadlock at every level, when two transactions lock the same in another order.
    """


class StoreRefused(StoreError):
    """It can never succeed with this data (SQLSTATE 22, 23, 54): find it and dead-letter it."""


class SchemaMismatch(StoreError):
    """The database is not at this version's schema."""


class HandlersStuck(SagaEngineError):
    """Cancelled handlers that still run use all slots of a participant: no command can start."""

    exit_code = 9


class ProcessCancelled(SagaEngineError):
    """User code cancelled the main task of the process, which ends."""

    exit_code = 9


class BrokerError(SagaEngineError):
    """RabbitMQ refused, or did not answer."""

    exit_code = 5


class BrokerUnavailable(BrokerError):
    """Out of reach, or it refuses the connection. An interrupted publish has often arrived."""


class TopologyMismatch(BrokerError):
    """A queue or an exchange exists with other arguments, which RabbitMQ cannot change."""

    exit_code = 2


_collected_errors: ContextVar[list[DefinitionError] | None] = ContextVar("collected", default=None)


@contextmanager
def collect_errors() -> Iterator[list[DefinitionError]]:
    """
    Collect the errors of declarations instead of raising them; for `saga-engine check`.

    A step with an error stays in its saga with a mapping that must not be called, so that the rules
    can check the other steps. Such a saga must not run.
    """
    collected: list[DefinitionError] = []
    token = _collected_errors.set(collected)
    try:
        yield collected
    finally:
        _collected_errors.reset(token)


def or_fallback(build: Callable[[], Result], fallback: Result) -> Result:
    """What *build* returns; *fallback* if it raises a DefinitionError that is collected."""
    try:
        return build()
    except DefinitionError as error:
        raise_or_collect(error)
        return fallback


def raise_or_collect(error: DefinitionError) -> None:
    """Raise the error, unless `collect_errors` collects it."""
    collected = _collected_errors.get()
    if collected is None:
        raise error
    collected.append(error)
