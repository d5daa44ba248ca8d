"""
Payloads sealed with AES-256-GCM under keys with ids. Its bytes are in docs/protocol.md, section 13.

Sealing must be deterministic, and a nonce that repeats under one key breaks GCM. So the nonce is a
pseudorandom function of what is sealed (the SIV construction: Rogaway and Shrimpton, EUROCRYPT
2006; RFC 8452 does the same with another hash): it repeats only where the whole message does, which
tells that the two are equal and no more. And each place, that is each run, step and kind of value,
has keys of its own (HKDF-Expand, RFC 5869), so that the few messages of one place are all that
could ever collide in 96 bits: the limit of 2^32 messages (NIST SP 800-38D, 8.3) is never near,
however long one key is current. The place is in the derivation and in the associated data: text
that is moved to another place does not open there.
"""

import base64
import binascii
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from saga_engine.encryption.keyring import ALGORITHM, KeyRing, mark_of
from saga_engine.payload.encryption import SealError

NONCE_BYTES = 12
TAG_BYTES = 16


class AesGcm:
    """The codec `aes-gcm`: the ring's current key seals, the one that a text names opens it."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, plain: bytes, place: str) -> str | None:
        """Seal bytes for a place under the current key; None when there is none."""
        key_id = self._ring.current
        if key_id is None:
            return None
        encryption, nonces = _keys_of(self._ring[key_id], place)
        nonce = hmac.digest(nonces, plain, "sha256")[:NONCE_BYTES]
        sealed = AESGCM(encryption).encrypt(nonce, plain, _associated(key_id, place))
        data = base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()
        return mark_of(key_id) + data

    def unseal(self, sealed: str, place: str) -> bytes:
        """
        Open what was sealed for that place.

        Raises:
            SealError: its key is not in the ring, or it was not sealed here for that place.
        """
        algorithm, _, rest = sealed.partition(".")
        key_id, _, data = rest.partition(".")
        if algorithm != ALGORITHM:
            raise SealError(f"cannot be unsealed: it is not sealed with {ALGORITHM}")
        if key_id not in self._ring:
            raise SealError(f"cannot be unsealed: key {key_id[:64]!r} is not in the key ring")
        raw = _decoded(data, key_id)
        encryption, _nonces = _keys_of(self._ring[key_id], place)
        try:
            return AESGCM(encryption).decrypt(
                raw[:NONCE_BYTES], raw[NONCE_BYTES:], _associated(key_id, place)
            )
        except InvalidTag:
            raise SealError(
                f"cannot be unsealed: the bytes of key {key_id!r} differ from those it was sealed"
                " with, or it was changed or moved on its way"
            ) from None


def _keys_of(key: bytes, place: str) -> tuple[bytes, bytes]:
    """HKDF-Expand to 64 bytes: the key that encrypts at a place, and the key of its nonces."""
    info = f"saga-engine {ALGORITHM} {place}".encode()
    first = hmac.digest(key, info + b"\x01", "sha256")
    return first, hmac.digest(key, first + info + b"\x02", "sha256")


def _associated(key_id: str, place: str) -> bytes:
    return (mark_of(key_id) + place).encode()


def _decoded(data: str, key_id: str) -> bytes:
    try:
        raw = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) < NONCE_BYTES + TAG_BYTES:
        raise SealError(f"cannot be unsealed: what key {key_id!r} sealed is cut short or damaged")
    return raw
