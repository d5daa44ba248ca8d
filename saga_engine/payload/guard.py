"""
Calls into the author's code: mapping functions, and the validators and serializers of payloads.

That code may raise anything, SystemExit and asyncio.CancelledError included, or not return. Every
call of the core goes through `call_user_code`, which makes one error of it that the decision
answers with an incident of that run. Interrupting a call that takes too long is I/O, so a
CallTimeLimit is passed in; the core has none of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from saga_engine.payload.encryption import EncryptionError
from saga_engine.payload.payload import PayloadError
from saga_engine.vocabulary import Direction

Result = TypeVar("Result")

MAX_CLASS_NAME_LENGTH = 100
"""Characters of an exception's class name that are kept."""

_PACKAGE = __file__.rpartition("/payload/")[0] + "/"


class UserCodeCall(NamedTuple):
    """
    One call into the author's code.

    `step`, `direction` and `command` are empty for a run's input. `function` is the name of the
    mapping function or of the type that is read; `source_location` is the `file:line` of its
    declaration.
    """

    saga: str
    run_id: str
    step: str
    direction: Direction | None
    command: str
    function: str
    source_location: str


class TimeLimitExceeded(BaseException):
    """
    Raised by a CallTimeLimit inside the author's code when a call takes too long.

    Not an Exception, so that `except Exception` does not catch it. `seconds` is the time limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class UserCodeError(Exception):
    """
    The author's code did not return a value.

    `text` says what it did, as the end of a sentence: the class of an exception and its location.
    It has no value and no text of an exception, because both may quote a payload. `detail` names
    the paths in a payload, and so the keys of its objects, and the rules that they break.
    """

    def __init__(self, call: UserCodeCall, text: str, detail: str = "") -> None:
        super().__init__(f"{call.source_location} {text}")
        self.call = call
        self.text = text
        self.detail = detail


class CallTimeLimit(Protocol):
    """Limits the time of calls, one at a time."""

    def enter(self, call: UserCodeCall) -> None:
        """
        Start the time of a call. From now on it may raise TimeLimitExceeded inside the call.

        Raises:
            UserCodeError: the call must not be made.
        """

    def leave(self) -> None:
        """
        Stop the time. TimeLimitExceeded is not raised after this.

        Raises:
            UserCodeError: the call took too long and could not be interrupted.
        """


class NoTimeLimit:
    """A CallTimeLimit without a limit."""

    def __repr__(self) -> str:
        return "NO_TIME_LIMIT"

    def enter(self, call: UserCodeCall) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


NO_TIME_LIMIT = NoTimeLimit()


def call_user_code(
    time_limit: CallTimeLimit, call: UserCodeCall, function: Callable[..., Result], *arguments: Any
) -> Result:
    """
    Call *function*, which calls the author's code, with *arguments*.

    Raises:
        PayloadError, EncryptionError: as *function* does.
        UserCodeError: it raised anything else, or the call was interrupted or refused.
    """
    try:
        time_limit.enter(call)
        try:
            return function(*arguments)
        except (PayloadError, EncryptionError, UserCodeError, TimeLimitExceeded):
            raise
        except BaseException as error:  # noqa: BLE001 - the author's code may raise anything
            text = f"raised {class_name(error)}" + _raise_location(error, call)
            # Within the time limit: the exception's methods may be the author's code as well.
            raise UserCodeError(call, text, _validation_detail(error)) from None
        finally:
            time_limit.leave()
    except TimeLimitExceeded as error:
        text = f"did not return within {error.seconds:g} s and was interrupted"
        raise UserCodeError(call, text + _raise_location(error, call)) from None


def class_name(error: BaseException) -> str:
    """Name the class of an exception: printable, of a bounded length, without calling its code."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return "".join(each if each.isprintable() else "?" for each in name[:MAX_CLASS_NAME_LENGTH])


def _validation_detail(error: BaseException) -> str:
    """Name the paths and rules of a pydantic ValidationError, without values; empty for others."""
    if class_name(error) != "ValidationError":
        return ""
    validation_error: Any = error
    try:
        problems = validation_error.errors(
            include_input=False, include_url=False, include_context=False
        )
        # A custom validator's message may quote the value; the code of its type cannot.
        named = [f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in problems[:3]]
    except BaseException:  # noqa: BLE001 - another class of that name
        return ""
    return f" ({'; '.join(named)}{' and more' if len(problems) > 3 else ''})"


def _raise_location(error: BaseException, call: UserCodeCall) -> str:
    """Where in the author's code it was raised: in the declaring file if possible, else last."""
    in_declaring_file, in_user_code = "", ""
    trace = BaseException.__dict__["__traceback__"].__get__(error)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        location = f" at {file}:{trace.tb_lineno}"
        if file == call.source_location.rpartition(":")[0]:
            in_declaring_file = location
        elif not file.startswith(_PACKAGE) and "/site-packages/" not in file:
            in_user_code = location
        trace = trace.tb_next
    return in_declaring_file or in_user_code
