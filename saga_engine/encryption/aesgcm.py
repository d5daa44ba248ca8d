"""
Payload encryption with AES-256-GCM; docs/protocol.md, section 13, specifies the ciphertext.

Encryption must be deterministic, but a nonce that repeats under one key breaks GCM. So the nonce is
a pseudorandom function of the plaintext (the SIV construction: Rogaway and Shrimpton, EUROCRYPT
2006; RFC 8452 does the same with another hash). It repeats only for the same plaintext, which
reveals that two values are equal and nothing else. Keys are derived (HKDF-Expand, RFC 5869) from
the associated data: the run, the step and the kind of value. So only the few messages with the same
associated data could collide in 96 bits, and the limit of 2^32 messages (NIST SP 800-38D, 8.3) is
never reached, however long a key is used. The associated data is authenticated as well: ciphertext
that is moved to another run, step or kind of value cannot be decrypted.
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
    """The codec `aes-gcm`: encrypts with the current key, decrypts with the key that is named."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """Encrypt bytes with the current key; None if there is no current key."""
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

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        """
        Decrypt a ciphertext.

        Raises:
            EncryptionError: its key is not in the key ring, or it was not encrypted with this key
                and associated data.
        """
        algorithm, _, rest = ciphertext.partition(".")
        key_id, _, data = rest.partition(".")
        if algorithm != ALGORITHM:
            raise EncryptionError(f"cannot be decrypted: it is not encrypted with {ALGORITHM}")
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
                f"cannot be decrypted: the bytes of key {key_id!r} differ from those it was"
                " encrypted with, or it was changed or moved in transit"
            ) from None


def _derive_keys(master_key: bytes, associated_data: str) -> tuple[bytes, bytes]:
    """Derive the encryption key and the nonce key (HKDF-Expand to 64 bytes)."""
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
            f"cannot be decrypted: the ciphertext of key {key_id!r} is cut short or damaged"
        )
    return raw
