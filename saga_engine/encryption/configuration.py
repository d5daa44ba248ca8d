"""The codec that the settings name: none, the built-in one, or one of the user's."""

from functools import cache

from saga_engine.encryption.keyring import KeyRing
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load_objects
from saga_engine.payload.encryption import NO_ENCRYPTION, Codec, PayloadEncryption
from saga_engine.settings import Settings

AES_GCM = "aes-gcm"


def encryption_from(settings: Settings) -> PayloadEncryption:
    """
    Create the payload encryption of this process.

    Raises:
        ConfigurationError: the codec cannot be loaded, or its keys are missing or not valid.
    """
    name, keys = settings.payload_codec, settings.payload_encryption_keys
    if name == AES_GCM:
        if keys is None:
            raise ConfigurationError(
                "SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS is not set, and codec aes-gcm has no other"
                " keys. Set it to id=base64 of 32 random bytes, or to @FILE."
            )
        return PayloadEncryption(_aes_gcm_codec(keys.get_secret_value()))
    if keys is not None:
        raise ConfigurationError(
            "SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS is set, and nothing uses it. Set"
            " SAGA_ENGINE_PAYLOAD_CODEC to aes-gcm, or unset the keys."
        )
    return (
        NO_ENCRYPTION
        if name is None
        else PayloadEncryption(_load_codec(name, settings.import_timeout))
    )


@cache
def encryption_from_environment() -> PayloadEncryption:
    """Like `encryption_from`, with the settings of the environment; read once in a process."""
    return encryption_from(Settings.load())


def _aes_gcm_codec(keys: str) -> Codec:
    try:
        from saga_engine.encryption.aesgcm import AesGcmCodec  # noqa: PLC0415 - only with the extra
    except ImportError:
        raise ConfigurationError(
            "Codec aes-gcm needs the package cryptography. Install saga-engine[crypto]."
        ) from None
    return AesGcmCodec(KeyRing.parse(keys))


def _load_codec(name: str, import_timeout: float) -> Codec:
    if not name.partition(":")[2]:
        raise ConfigurationError(
            f"SAGA_ENGINE_PAYLOAD_CODEC is {name!r}: name an object as MODULE:NAME, or aes-gcm."
        )
    [codec] = load_objects(name, Codec, import_timeout)
    return codec
