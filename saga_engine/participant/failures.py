"""
The outcome and the failure that an exception of the user's code becomes in a reply.

`Rejected` and `Failed` keep the author's text. Of any other exception only the class and the
location are shown: its text may quote a payload or a password. The code is the name of the class,
or the SQLSTATE if the database refused a statement.
"""

import re
from collections.abc import Iterator
from types import TracebackType

import orjson

from saga_engine.containment import TaskExited
from saga_engine.payload.limits import BodyLimits
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of
from saga_engine.protocol.rejection import Failed, Rejected, fits_reply
from saga_engine.protocol.reply import MAX_CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Outcome

MAX_GROUP_EXCEPTIONS = 100
"""The number of exceptions of one group that are inspected."""

_INVALID_CODE_CHARACTER = re.compile(r"[^\w.-]")
_CLASS_NAME_DESCRIPTOR = type.__dict__["__name__"]


def handler_error_in(error: BaseException) -> Rejected | Failed | None:
    """
    Find the `Rejected` or `Failed` that an exception stands for; None if it is neither.

    A group that contains only these counts as its first `Failed`, or else its first `Rejected`.
    """
    exceptions = list(_leaf_exceptions(error))
    if not exceptions or not all(isinstance(each, Rejected | Failed) for each in exceptions):
        return None
    chosen = next((each for each in exceptions if isinstance(each, Failed)), exceptions[0])
    assert isinstance(chosen, Rejected | Failed)
    return chosen


def outcome_and_failure(error: Rejected | Failed, limits: BodyLimits) -> tuple[Outcome, Failure]:
    """
    Return the outcome and the failure of a `Rejected` or `Failed`.

    Args:
        error: the exception. If its text does not fit a reply, the failure names only its class.
        limits: of the body of a message, from the settings.
    """
    outcome = Outcome.REJECTED if isinstance(error, Rejected) else Outcome.FAILED
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure) and fits_reply(failure, limits):
        return outcome, failure
    return outcome, failure_without_text(error)


def failure_without_text(error: Rejected | Failed) -> Failure:
    """Make a failure that only names the class, because the text does not fit a reply."""
    class_code = _class_code(error)
    return Failure(class_code, class_code)


def failure_of_exception(error: BaseException) -> Failure:
    """Make the failure of an exception that is neither `Rejected` nor `Failed`."""
    exceptions = list(_leaf_exceptions(error))
    error = exceptions[0] if len(exceptions) == 1 else error
    if isinstance(error, TaskExited) and error.__cause__ is not None:
        error = error.__cause__
    class_code, sqlstate = _class_code(error), sqlstate_of(error)
    return Failure(
        sqlstate or class_code, f"{class_code} (SQLSTATE {sqlstate})" if sqlstate else class_code
    )


def class_and_location(error: BaseException, file: str = "") -> str:
    """Describe an exception by its class and its last line in *file*, or its last line."""
    frames = [(trace.tb_frame.f_code.co_filename, trace.tb_lineno) for trace in _tracebacks(error)]
    frames_in_file = [frame for frame in frames if frame[0] == file]
    last = (frames_in_file or frames)[-1:]
    return _class_code(error) + "".join(f" at {name}:{line}" for name, line in last)


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _leaf_exceptions(error: BaseException) -> Iterator[BaseException]:
    """Iterate over a group in order, without recursion: groups may be nested deeply."""
    stack, visited = [error], 0
    while stack and visited < MAX_GROUP_EXCEPTIONS:
        each, visited = stack.pop(), visited + 1
        if isinstance(each, BaseExceptionGroup):
            stack.extend(reversed(each.exceptions))
        else:
            yield each
    if stack:  # not all were inspected
        yield error


def failure_code_in(body: bytes, outcome: Outcome) -> str:
    """
    Read the failure's code in the body of a reply; empty if there is none, as for a success.

    The body of a repeated reply comes from the participant's table, which another version, or
    another program, may have written.
    """
    if outcome is Outcome.SUCCEEDED:
        return ""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    code = document.get("code") if isinstance(document, dict) else None
    return code[:MAX_CODE_CHARACTERS] if isinstance(code, str) else ""


def _class_code(error: BaseException) -> str:
    """Turn the name of an exception's class into a code: 1 to 128 characters (docs/protocol.md)."""
    # Not type(error).__name__, which a metaclass may override.
    name: str = _CLASS_NAME_DESCRIPTOR.__get__(type(error))
    return _INVALID_CODE_CHARACTER.sub("_", name)[:MAX_CODE_CHARACTERS] or "Exception"
