"""
What an answer to a webhook means, as Standard Webhooks says, and what to do about it.

Only 2xx is a delivery. A redirect is never followed: the address behind it was not checked, and a
message that was signed for one receiver must not go to another.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum


class Verdict(StrEnum):
    """What is known about one attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # of this event: its stream waits, other streams go on
    UNAVAILABLE = "unavailable"  # the receiver takes nothing now: the feed waits
    GONE = "gone"  # the receiver wants no events any more: the feed stops
    UNSENDABLE = "unsendable"  # the event cannot be a request; it was not sent


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The outcome of one attempt.

    Args:
        verdict: see Verdict.
        problem: what went wrong and the next action, as the rest of sentences whose subject is the
            webhook; empty if nothing. It has nothing of the body.
        retry_after: seconds that the receiver has asked for; None: it has not.
    """

    verdict: Verdict
    problem: str = ""
    retry_after: float | None = None


DELIVERED = Answer(Verdict.DELIVERED)

_SIGNATURE = (
    "it did not accept the signature, if it verifies one. Give the receiver the secret of the feed,"
    " check its clock, and that it verifies the body as it arrived"
)
_ADVICE = {
    400: _SIGNATURE,
    401: _SIGNATURE,
    403: _SIGNATURE,
    404: "nothing is at that path. Correct the URL, or deploy the receiver",
    405: "it takes no POST at that path. Correct the URL, or the receiver",
    413: "the event is too large for it. Raise the limit of the receiver",
}


def read_answer(status: int, retry_after: str | None, now: float) -> Answer:
    """
    Say what an answer means.

    Args:
        status: the status code.
        retry_after: the header of that name; None: there is none.
        now: seconds since 1970.
    """
    if 200 <= status < 300:
        return DELIVERED
    if status == 410:
        return Answer(
            Verdict.GONE,
            "answered 410: the receiver wants no more events. Remove the webhook, or correct its"
            " URL.",
        )
    if 300 <= status < 400:
        return Answer(
            Verdict.UNAVAILABLE,
            f"answered {status}, a redirect, which is never followed. Declare the URL that it leads"
            " to, if that is the receiver.",
        )
    seconds = _seconds(retry_after, now)
    if status == 429 or (status == 503 and seconds is not None):
        return Answer(
            Verdict.UNAVAILABLE,
            f"answered {status}: the receiver is overloaded. The feed waits as long as it asks.",
            seconds,
        )
    advice = _ADVICE.get(status, "the receiver failed. Its log says why")
    return Answer(Verdict.REFUSED, f"answered {status}: {advice}.")


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Read a Retry-After header: seconds, or a date (RFC 9110, 10.2.3); None if it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(now, UTC)).total_seconds())
