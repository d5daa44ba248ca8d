"""Keys for tests, and payload encryption with them."""

import base64

from saga_engine.encryption.aesgcm import AesGcmCodec
from saga_engine.encryption.keyring import KeyRing
from saga_engine.payload.encryption import PayloadEncryption

KEYS = {key_id: bytes([number]) * 32 for number, key_id in enumerate(("k1", "k2", "k3"), 1)}


def key_ring(*key_ids):
    """The keys of these ids; the first one encrypts, unless it is `none`."""
    return KeyRing.parse(keys_setting(*key_ids))


def payload_encryption(*key_ids):
    return PayloadEncryption(AesGcmCodec(key_ring(*key_ids)))


def keys_setting(*key_ids):
    """The same as a value of SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS."""
    keys = {each: base64.b64encode(KEYS[each]).decode() for each in key_ids if each != "none"}
    return ",".join(f"{each}={keys[each]}" if each in keys else each for each in key_ids)


def encryption_settings(*key_ids):
    """The settings for `payload_encryption`."""
    return {"payload_codec": "aes-gcm", "payload_encryption_keys": keys_setting(*key_ids)}
