"""
The correlation id of a command: a token that only the engine can sign.

A participant copies the token into its reply, and can reply to no other command with it. The text
of the token is readable; a keyed digest covers the run, the step, the direction and the attempt
(HMAC-SHA-256 truncated to 128 bits, which RFC 2104, section 5 allows). The key is stored in
PostgreSQL.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from saga_engine.vocabulary import Direction

KEY_BYTES = 32

_DOMAIN_SEPARATOR = b"saga-engine correlation id 1\0"
_DIGEST_LENGTH = 22
_TOKEN_TEXT = re.compile(r"[0-9a-f]{32}\.[ac]\.[0-9]{1,20}\.", re.ASCII)
_DIRECTION_LETTERS = {Direction.ACTION: "a", Direction.COMPENSATION: "c"}
_DIRECTION_BY_LETTER = {letter: direction for direction, letter in _DIRECTION_LETTERS.items()}


@dataclass(frozen=True, slots=True)
class CommandRef:
    """Identifies a command of a run; `attempt` counts from 1 in each direction of a step."""

    run_id: str  # a UUID as `str` writes it
    step: str
    direction: Direction
    attempt: int


def new_signing_key() -> bytes:
    """Make a key for `sign_token` and `verify_token`."""
    return secrets.token_bytes(KEY_BYTES)


def sign_token(key: bytes, ref: CommandRef) -> str:
    """
    Sign the token of a command.

    Returns:
        ASCII, `<digest>.<run id>.<a or c>.<attempt>.<step>`; at most 140 characters for a step name
        of 64, where AMQP allows 255.
    """
    run_id = ref.run_id.replace("-", "")
    text = f"{run_id}.{_DIRECTION_LETTERS[ref.direction]}.{ref.attempt}.{ref.step}"
    return f"{_digest(key, _to_bytes(text)).decode()}.{text}"


def verify_token(key: bytes, token: str) -> CommandRef | None:
    """Return the command of a token, or None if the token was not signed with this key."""
    digest, _, text = token.partition(".")
    if not hmac.compare_digest(_to_bytes(digest), _digest(key, _to_bytes(text))):
        return None
    # What is signed here needs no check, and is put together without a UUID object, which is slow.
    run_id, letter, attempt, step = text.split(".", 3)
    parts = (run_id[:8], run_id[8:12], run_id[12:16], run_id[16:20], run_id[20:])
    return CommandRef("-".join(parts), step, _DIRECTION_BY_LETTER[letter], int(attempt))


def verify_with_any(keys: Iterable[bytes], token: str) -> CommandRef | None:
    """As `verify_token`, with several keys: the current one, and the one before it."""
    for key in keys:
        if (command_ref := verify_token(key, token)) is not None:
            return command_ref
    return None


def redact_token(token: str) -> str:
    """
    Remove the digest from a token, so that it can be logged and stored.

    The digest makes it a bearer token: with it, any program can reply to the command. A
    correlation id that is not a token is returned unchanged.
    """
    digest, _, text = token.partition(".")
    return text if len(digest) == _DIGEST_LENGTH and _TOKEN_TEXT.match(text) else token


def _digest(key: bytes, text: bytes) -> bytes:
    digest = hmac.digest(key, _DOMAIN_SEPARATOR + text, "sha256")[:16]
    return urlsafe_b64encode(digest).rstrip(b"=")


def _to_bytes(text: str) -> bytes:
    """Encode a text; a forged one may have lone surrogates, which UTF-8 cannot express."""
    return text.encode(errors="surrogatepass")
