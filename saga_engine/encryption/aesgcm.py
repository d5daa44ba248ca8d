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

from saga_engine.encryption.keyring import ALGORITHM, KeyRing, ciphertext_prefix
from saga_engine.payload.encryption import EncryptionError

NONCE_BYTES = 12
TAG_BYTES = 16


class AesGcmCodec:
    """The codec `aes-gcm`: the ring's current key seals, the one that a text names opens it."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """Seal bytes for a place under the current key; None when there is none."""
        key_id = self._key_ring.current_key_id
        if key_id is None:
            return None
        encryption_key, nonce_key = _derive_keys(self._key_ring[key_id], associated_data)
        nonce = hmac.digest(nonce_key, plaintext, "sha256")[:NONCE_BYTES]
        ciphertext = AESGCM(encryption_key).encrypt(
            nonce, plaintext, _associated_bytes(key_id, associated_data)
        )
        data = base64.urlsafe_b64encode(nonce + ciphertext).rstrip(b"=").decode()
        return ciphertext_prefix(key_id) + data

    def decrypt(self, encrypted: str, associated_data: str) -> bytes:
        """
        Open what was sealed for that place.

        Raises:
            SealError: its key is not in the ring, or it was not sealed here for that place.
        """
        algorithm, _, rest = encrypted.partition(".")
        key_id, _, data = rest.partition(".")
        if algorithm != ALGORITHM:
            raise EncryptionError(f"cannot be decrypted: it is not sealed with {ALGORITHM}")
        if key_id not in self._key_ring:
            raise EncryptionError(
                f"cannot be decrypted: key {key_id[:64]!r} is not in the key ring"
            )
        raw = _decode_ciphertext(data, key_id)
        encryption_key, _nonce_key = _derive_keys(self._key_ring[key_id], associated_data)
        try:
            return AESGCM(encryption_key).decrypt(
                raw[:NONCE_BYTES], raw[NONCE_BYTES:], _associated_bytes(key_id, associated_data)
            )
        except InvalidTag:
            raise EncryptionError(
                f"cannot be decrypted: the bytes of key {key_id!r} differ from those it was sealed"
                " with, or it was changed or moved on its way"
            ) from None


def _derive_keys(master_key: bytes, associated_data: str) -> tuple[bytes, bytes]:
    """HKDF-Expand to 64 bytes: the key that encrypts at a place, and the key of its nonces."""
    info = f"saga-engine {ALGORITHM} {associated_data}".encode()
    encryption_key = hmac.digest(master_key, info + b"\x01", "sha256")
    return encryption_key, hmac.digest(master_key, encryption_key + info + b"\x02", "sha256")


def _associated_bytes(key_id: str, associated_data: str) -> bytes:
    return (ciphertext_prefix(key_id) + associated_data).encode()


def _decode_ciphertext(data: str, key_id: str) -> bytes:
    try:
        raw = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) < NONCE_BYTES + TAG_BYTES:
        raise EncryptionError(
            f"cannot be decrypted: what key {key_id!r} sealed is cut short or damaged"
        )
    return raw
