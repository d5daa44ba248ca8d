"""The codec that the settings name: none, the built-in one, or an object of the user's."""

from functools import cache

from saga_engine.encryption.keyring import KeyRing
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load
from saga_engine.payload.encryption import PLAIN, Codec, Sealing
from saga_engine.settings import Settings

BUILT_IN = "aes-gcm"


def sealing_of(settings: Settings) -> Sealing:
    """
    Make what seals and unseals payloads here.

    Raises:
        ConfigurationError: the codec is not there, or its keys are missing or do not fit.
    """
    name, keys = settings.payload_codec, settings.payload_keys
    if name == BUILT_IN:
        if keys is None:
            raise ConfigurationError(
                "SAGA_ENGINE_PAYLOAD_KEYS is not set, and codec aes-gcm has no other keys. Set it"
                " to id=base64 of 32 random bytes, or to @FILE."
            )
        return Sealing(_built_in(keys.get_secret_value()))
    if keys is not None:
        raise ConfigurationError(
            "SAGA_ENGINE_PAYLOAD_KEYS is set, and nothing uses it. Set SAGA_ENGINE_PAYLOAD_CODEC to"
            " aes-gcm, or unset the keys."
        )
    return PLAIN if name is None else Sealing(_named(name, settings.import_timeout))


@cache
def sealing_of_environment() -> Sealing:
    """As `sealing_of`, for a caller that has no settings; read once in a process."""
    return sealing_of(Settings.load())


def _built_in(keys: str) -> Codec:
    try:
        from saga_engine.encryption.aesgcm import AesGcm  # noqa: PLC0415 - only with the extra
    except ImportError:
        raise ConfigurationError(
            "Codec aes-gcm needs the package cryptography. Install saga-engine[crypto]."
        ) from None
    return AesGcm(KeyRing.read(keys))


def _named(name: str, import_timeout: float) -> Codec:
    if not name.partition(":")[2]:
        raise ConfigurationError(
            f"SAGA_ENGINE_PAYLOAD_CODEC is {name!r}: name an object as MODULE:NAME, or aes-gcm."
        )
    [codec] = load(name, Codec, import_timeout)  # type: ignore[type-abstract]  # it is only looked for
    return codec
