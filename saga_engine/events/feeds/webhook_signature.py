"""
The signature of a webhook: Standard Webhooks 1.0, `v1`, HMAC-SHA256.

A receiver computes it from the id, the timestamp and the body. So it knows that the sender has the
secret, and that the message is neither altered nor old. While a secret is replaced, a
message has a signature for each of several secrets; a receiver accepts any one.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
MAX_SECRETS = 4
"""A message has a signature for each: two while one is replaced, and two that were forgotten."""

SECRET_RULE = (
    f"Give it as {PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes in base64; to"
    f" replace a secret, the new one and the old one with a space between them, at most"
    f" {MAX_SECRETS}"
)


class InvalidSecret(ValueError):
    """A secret cannot be used. The text does not have it."""


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """The secrets that sign the messages of one webhook, the newest first."""

    keys: Sequence[bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read secrets that are separated by spaces.

        Raises:
            InvalidSecret: one is missing or not valid.
        """
        secrets = text.split()
        if not 1 <= len(secrets) <= MAX_SECRETS:
            raise InvalidSecret(f"has {len(secrets)} secrets")
        return cls([_decode(each) for each in secrets])

    def sign(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """
        Make the headers that identify and sign a message.

        Args:
            message_id: the same whenever the message is sent; without dots.
            timestamp: of this attempt, in seconds since 1970.
            body: as it is sent.
        """
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = [
            base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self.keys
        ]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
        }


def _decode(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise InvalidSecret(f"has a secret that does not begin with {PREFIX}")
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise InvalidSecret("has a secret that is not base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidSecret(f"has a secret of {len(key)} bytes")
    return key
