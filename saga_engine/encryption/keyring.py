"""
The keys of a codec by their ids: the first one encrypts, all of them decrypt.

They are written `id=base64`, separated by commas or line ends; a text that begins with `@` names a
file with such entries. With `none` as the first entry no key encrypts, but all of them decrypt: so
encryption can be switched on and off while runs are in flight.

No message shows a key. An id may be a key by mistake, so errors name the number of the entry.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from saga_engine.errors import ConfigurationError

KEY_BYTES = 32
KEY_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
SETTING_NAME = "SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS"


ALGORITHM = "aes-gcm-1"


def ciphertext_prefix(key_id: str) -> str:
    """The beginning of every ciphertext of a key."""
    return f"{ALGORITHM}.{key_id}."


NO_CURRENT_KEY = "none"
"""The first entry when no key encrypts."""


class KeyRing:
    """
    Keys of 32 random bytes by id; the first one encrypts.

    Args:
        keys: the keys by id.
        encrypting: whether there is a current key.

    Raises:
        ConfigurationError: there is no key, or an id or a key is not valid.
    """

    def __init__(self, keys: Mapping[str, bytes], *, encrypting: bool = True) -> None:
        for position, (key_id, key) in enumerate(keys.items(), 1):
            if not KEY_ID_PATTERN.fullmatch(key_id):
                raise _invalid_setting(
                    f"the id of entry {position} is not 1 to 64 letters, digits, - and _"
                )
            if len(key) != KEY_BYTES:
                raise _invalid_setting(
                    f"the key of entry {position} has {len(key)} bytes, not {KEY_BYTES}"
                )
        if not keys:
            raise _invalid_setting("it holds no key")
        self._keys = dict(keys)
        self.current_key_id = next(iter(keys)) if encrypting else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read keys from the text of the setting, or from the file that it names."""
        keys: dict[str, bytes] = {}
        entries = [each.strip() for each in re.split(r"[,\n]", _read_content(text)) if each.strip()]
        encrypting = entries[:1] != [NO_CURRENT_KEY]
        for position, entry in enumerate(entries, 1):
            if position > 1 or encrypting:
                key_id, key = _parse_entry(entry, position)
                if key_id in keys:
                    raise _invalid_setting(f"the id of entry {position} is a duplicate")
                keys[key_id] = key
        return cls(keys, encrypting=encrypting)

    def __getitem__(self, key_id: str) -> bytes:
        return self._keys[key_id]

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)}; {self.current_key_id} encrypts)"


def _read_content(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid_setting(f"its file cannot be read ({type(error).__name__})") from None


def _parse_entry(entry: str, position: int) -> tuple[str, bytes]:
    key_id, separator, key = entry.partition("=")
    if not separator or not KEY_ID_PATTERN.fullmatch(key_id):
        raise _invalid_setting(f"entry {position} is not id=base64")
    try:
        return key_id, base64.b64decode(key, validate=True)
    except ValueError:
        raise _invalid_setting(f"the key of entry {position} is not base64") from None


def _invalid_setting(problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{SETTING_NAME} is not valid: {problem}. Write id=base64 for each key; the first one"
        " encrypts. `openssl rand -base64 32` makes a key."
    )
