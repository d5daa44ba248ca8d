"""
What an exception of the user's code means as an answer, whatever the exception is.

A refusal (`Rejected`, `Failed`) speaks in its author's words. Of anything else only the class and
the place are shown: its text may quote a payload or a password. The code is the class's name, or
the SQLSTATE when the database refused a statement.
"""

import re
from collections.abc import Iterator
from types import TracebackType

import orjson

from saga_engine.containment import TaskExited
from saga_engine.participant.errors import Failed, Rejected, fits_reply
from saga_engine.payload.limits import BodyLimits
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of
from saga_engine.protocol.reply import MAX_CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Outcome

MAX_GROUP_EXCEPTIONS = 100
"""Exceptions of one group that are looked at."""

_INVALID_CODE_CHARACTER = re.compile(r"[^\w.-]")
_CLASS_NAME_DESCRIPTOR = type.__dict__["__name__"]


def handler_error_in(error: BaseException) -> Rejected | Failed | None:
    """
    Find the refusal that *error* is.

    A group that holds only refusals is one: the first `Failed` in it, or else the first `Rejected`.
    """
    exceptions = list(_leaf_exceptions(error))
    if not exceptions or not all(isinstance(each, Rejected | Failed) for each in exceptions):
        return None
    chosen = next((each for each in exceptions if isinstance(each, Failed)), exceptions[0])
    assert isinstance(chosen, Rejected | Failed)
    return chosen


def outcome_and_failure(error: Rejected | Failed, limits: BodyLimits) -> tuple[Outcome, Failure]:
    """
    Give the outcome and the words of a refusal; only its class when the words cannot travel.

    Args:
        limits: of the body of a message, from the settings.
    """
    outcome = Outcome.REJECTED if isinstance(error, Rejected) else Outcome.FAILED
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure) and fits_reply(failure, limits):
        return outcome, failure
    return outcome, failure_without_text(error)


def failure_without_text(error: Rejected | Failed) -> Failure:
    """Give a refusal without its words, which cannot travel: the name of its class."""
    class_code = _class_code(error)
    return Failure(class_code, class_code)


def failure_of_exception(error: BaseException) -> Failure:
    """Give the code and the message of an exception that is not a refusal."""
    exceptions = list(_leaf_exceptions(error))
    error = exceptions[0] if len(exceptions) == 1 else error
    if isinstance(error, TaskExited) and error.__cause__ is not None:
        error = error.__cause__
    class_code, sqlstate = _class_code(error), sqlstate_of(error)
    return Failure(
        sqlstate or class_code, f"{class_code} (SQLSTATE {sqlstate})" if sqlstate else class_code
    )


def class_and_location(error: BaseException, file: str = "") -> str:
    """Give class and place of an exception: the last line of *file* that it passed, or the last."""
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
    """Walk through a group in order, without recursion: groups may be nested deeply."""
    stack, visited = [error], 0
    while stack and visited < MAX_GROUP_EXCEPTIONS:
        each, visited = stack.pop(), visited + 1
        if isinstance(each, BaseExceptionGroup):
            stack.extend(reversed(each.exceptions))
        else:
            yield each
    if stack:  # too many to know them all
        yield error


def failure_code_in(body: bytes, outcome: Outcome) -> str:
    """
    Read the code in the body of an answer; empty when it has none, as that of a success.

    A repeated answer is what the participant's table holds, which another version, or another
    program, may have written.
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
    """Give the name of a class as a code: docs/protocol.md allows 1 to 128 characters."""
    name: str = _CLASS_NAME_DESCRIPTOR.__get__(
        type(error)
    )  # a metaclass may have another idea of it
    return _INVALID_CODE_CHARACTER.sub("_", name)[:MAX_CODE_CHARACTERS] or "Exception"
