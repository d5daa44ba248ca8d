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
from saga_engine.participant.errors import Failed, Rejected, travels
from saga_engine.payload.limits import Limits
from saga_engine.postgres.sqlalchemy_errors import code_of
from saga_engine.protocol.reply import CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Outcome

LEAVES = 100
"""Exceptions of one group that are looked at."""

_NO_WORD = re.compile(r"[^\w.-]")
_NAME = type.__dict__["__name__"]


def refusal_in(error: BaseException) -> Rejected | Failed | None:
    """
    Find the refusal that *error* is.

    A group that holds only refusals is one: the first `Failed` in it, or else the first `Rejected`.
    """
    leaves = list(_leaves(error))
    if not leaves or not all(isinstance(each, Rejected | Failed) for each in leaves):
        return None
    chosen = next((each for each in leaves if isinstance(each, Failed)), leaves[0])
    assert isinstance(chosen, Rejected | Failed)
    return chosen


def refusal(error: Rejected | Failed, limits: Limits) -> tuple[Outcome, Failure]:
    """
    Give the outcome and the words of a refusal; only its class when the words cannot travel.

    Args:
        limits: of the body of a message, from the settings.
    """
    outcome = Outcome.REJECTED if isinstance(error, Rejected) else Outcome.FAILED
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure) and travels(failure, limits):
        return outcome, failure
    return outcome, wordless(error)


def wordless(error: Rejected | Failed) -> Failure:
    """Give a refusal without its words, which cannot travel: the name of its class."""
    name = _named(error)
    return Failure(name, name)


def fault(error: BaseException) -> Failure:
    """Give the code and the message of an exception that is not a refusal."""
    leaves = list(_leaves(error))
    error = leaves[0] if len(leaves) == 1 else error
    if isinstance(error, TaskExited) and error.__cause__ is not None:
        error = error.__cause__
    name, state = _named(error), code_of(error)
    return Failure(state or name, f"{name} (SQLSTATE {state})" if state else name)


def place_of(error: BaseException, file: str = "") -> str:
    """Give class and place of an exception: the last line of *file* that it passed, or the last."""
    frames = [(trace.tb_frame.f_code.co_filename, trace.tb_lineno) for trace in _traces(error)]
    own = [frame for frame in frames if frame[0] == file]
    last = (own or frames)[-1:]
    return _named(error) + "".join(f" at {name}:{line}" for name, line in last)


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Walk through a group in order, without recursion: groups may be nested deeply."""
    stack, seen = [error], 0
    while stack and seen < LEAVES:
        each, seen = stack.pop(), seen + 1
        if isinstance(each, BaseExceptionGroup):
            stack.extend(reversed(each.exceptions))
        else:
            yield each
    if stack:  # too many to know them all
        yield error


def code_in(body: bytes, outcome: Outcome) -> str:
    """
    Read the code in the body of an answer; empty when it has none, as that of a success.

    A repeated answer is what the participant's table holds, which another version, or another
    program, may have written.
    """
    if outcome is Outcome.SUCCEEDED:
        return ""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    code = found.get("code") if isinstance(found, dict) else None
    return code[:CODE_CHARACTERS] if isinstance(code, str) else ""


def _named(error: BaseException) -> str:
    """Give the name of a class as a code: docs/protocol.md allows 1 to 128 characters."""
    name: str = _NAME.__get__(type(error))  # a metaclass may have another idea of it
    return _NO_WORD.sub("_", name)[:CODE_CHARACTERS] or "Exception"
