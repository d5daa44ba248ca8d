"""
What a handler raises to say no: Rejected for a business no, Failed for technical trouble.

Their texts travel to the engine and are shown to operators, so they are the author's to choose.
What any other exception says stays here: it may quote a payload or a password.
"""

from saga_engine.payload.limits import Limits, excess
from saga_engine.payload.payload import storable
from saga_engine.protocol.body import write_json
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.reply import CODE_CHARACTERS
from saga_engine.vocabulary import Failure, Json

REFUSAL_BYTES = 65_536
"""What a refusal may need: it is for people to read, and is kept in the run's journal."""


REFUSAL = Limits(size=REFUSAL_BYTES, depth=500, values=REFUSAL_BYTES)
"""
What no settings allow: a refusal is made before the settings are known.

Those of the process hold it to their own limits when it is answered.
"""


class _Refusal(Exception):
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
        if not _is_text(code) or not 0 < len(code) <= CODE_CHARACTERS:
            raise ValueError(f"The code must be a text of 1 to {CODE_CHARACTERS} characters.")
        self.failure = Failure(code, message, details)
        if not _is_text(message) or not travels(self.failure):
            raise ValueError(
                "The message must be a text, the details JSON, both without NUL, NaN or Infinity,"
                f" together at most {REFUSAL_BYTES} bytes and {REFUSAL.depth} levels deep."
            )


class Rejected(_Refusal):
    """A business no: nothing was done, and asking again would not help."""


class Failed(_Refusal):
    """Technical trouble: nothing was done that lasts, and asking again may help."""


def travels(failure: Failure, limits: Limits = REFUSAL) -> bool:
    """Whether a failure's code, message and details fit a reply, whose body has *limits*."""
    if not _is_text(failure.code) or not 0 < len(failure.code) <= CODE_CHARACTERS:
        return False
    if not _is_text(failure.message):
        return False
    body = failure_json(failure)
    try:
        written = write_json(body)
        return storable(body) and not excess(written, REFUSAL) and not excess(written, limits)
    except TypeError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str)
