"""
What a handler or a command's function raises instead of returning a result: Rejected or Failed.

Participants and aggregates share one Rejected: where a handler does not catch that of an aggregate,
its step is rejected. The texts are sent to the engine and shown to operators, so the author chooses
them. The text of any other exception never leaves the process: it may quote a payload or a
password.
"""

from saga_engine.payload.limits import BodyLimits, find_violation
from saga_engine.payload.payload import is_storable
from saga_engine.protocol.body import write_json
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.reply import MAX_CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Json

HANDLER_ERROR_BYTES = 65_536
"""Bytes of a handler error: it is for people to read, and is kept in the run's journal."""


HANDLER_ERROR_LIMITS = BodyLimits(
    max_bytes=HANDLER_ERROR_BYTES, max_depth=500, max_values=HANDLER_ERROR_BYTES
)
"""
The largest limits that any settings allow: an error is made before the settings are known.

The limits of the process's own settings are checked when the reply is written.
"""


class _HandlerError(Exception):
    """
    A reply that is not a success.

    Args:
        code: a word for programs, of 1 to 128 characters.
        message: a sentence for people.
        details: JSON with further information.

    Raises:
        ValueError: one of them cannot be sent.
    """

    def __init__(self, code: str, message: str = "", details: Json = None) -> None:
        super().__init__(code, message)
        if not _is_text(code) or not 0 < len(code) <= MAX_CODE_CHARACTERS:
            raise ValueError(f"The code must be a text of 1 to {MAX_CODE_CHARACTERS} characters.")
        self.failure = Failure(code, message, details)
        if not _is_text(message) or not fits_reply(self.failure):
            raise ValueError(
                "The message must be a text, the details JSON, both without NUL, NaN or Infinity,"
                f" together at most {HANDLER_ERROR_BYTES} bytes and"
                f" {HANDLER_ERROR_LIMITS.max_depth} levels deep."
            )

    def __str__(self) -> str:
        code, message = self.failure.code, self.failure.message
        return f"{code}: {message}" if message else code


class Rejected(_HandlerError):
    """A business rejection: nothing was done, and a retry would not help."""


class Failed(_HandlerError):
    """
    A technical failure: the command may have been done.

    The engine retries it, and compensates the step when its attempts are used up.
    """


def fits_reply(failure: Failure, limits: BodyLimits = HANDLER_ERROR_LIMITS) -> bool:
    """Whether a failure's code, message and details fit a reply whose body has *limits*."""
    if not _is_text(failure.code) or not 0 < len(failure.code) <= MAX_CODE_CHARACTERS:
        return False
    if not _is_text(failure.message):
        return False
    body = failure_json(failure)
    try:
        encoded = write_json(body)
        return (
            is_storable(body)
            and not find_violation(encoded, HANDLER_ERROR_LIMITS)
            and not find_violation(encoded, limits)
        )
    except TypeError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str)
