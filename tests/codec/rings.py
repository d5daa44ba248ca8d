"""Keys for tests, and what is sealed with them."""

import base64

from saga_engine.codec.aesgcm import AesGcm
from saga_engine.codec.keyring import KeyRing
from saga_engine.saga.sealing import Sealing

KEYS = {key_id: bytes([number]) * 32 for number, key_id in enumerate(("k1", "k2", "k3"), 1)}


def ring(*key_ids):
    """The keys of these ids; the first one seals."""
    return KeyRing({key_id: KEYS[key_id] for key_id in key_ids})


def sealing(*key_ids):
    return Sealing(AesGcm(ring(*key_ids)))


def setting(*key_ids):
    """The same as it stands in SAGA_ENGINE_PAYLOAD_KEYS."""
    return ",".join(f"{each}={base64.b64encode(KEYS[each]).decode()}" for each in key_ids)


def settings(*key_ids):
    """The settings that make `sealing`."""
    return {"payload_codec": "aes-gcm", "payload_keys": setting(*key_ids)}
