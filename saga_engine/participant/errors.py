"""
What a handler raises to say no: Rejected for a business no, Failed for technical trouble.

Their texts travel to the engine and are shown to operators, so they are the author's to choose.
What any other exception says stays here: it may quote a payload or a password.
"""

from saga_engine.payload.limits import BodyLimits, find_violation
from saga_engine.payload.payload import is_storable
from saga_engine.protocol.body import write_json
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.reply import MAX_CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Json

HANDLER_ERROR_BYTES = 65_536
"""What a refusal may need: it is for people to read, and is kept in the run's journal."""


HANDLER_ERROR_LIMITS = BodyLimits(
    max_bytes=HANDLER_ERROR_BYTES, max_depth=500, max_values=HANDLER_ERROR_BYTES
)
"""
What no settings allow: a refusal is made before the settings are known.

Those of the process hold it to their own limits when it is answered.
"""


class _HandlerError(Exception):
    """
    An answer that is not a success.

    Args:
        code: a word for programs, of 1 to 128 characters.
        message: a sentence for people.
        details: JSON, for whoever wants to know more.

    Raises:
        ValueError: one of them cannot travel.
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


class Rejected(_HandlerError):
    """A business no: nothing was done, and asking again would not help."""


class Failed(_HandlerError):
    """Technical trouble: nothing was done that lasts, and asking again may help."""


def fits_reply(failure: Failure, limits: BodyLimits = HANDLER_ERROR_LIMITS) -> bool:
    """Whether a failure's code, message and details fit a reply, whose body has *limits*."""
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
