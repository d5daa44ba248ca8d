"""
The keys of a codec by their ids: the first one seals, every one opens.

Written `id=base64`, with commas or line ends between them; a text that begins with `@` names a file
that says the same. With the word `none` in the first place nothing is sealed yet, or any more, and
all the same opened: so sealing is begun and ended while runs are in flight.

Nothing here ever shows a key; and because an id may be a key in the wrong place, errors count
entries instead.
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
    """How every text begins that this key sealed."""
    return f"{ALGORITHM}.{key_id}."


NO_CURRENT_KEY = "none"
"""What stands in the place of the first key when none is to seal."""


class KeyRing:
    """
    Keys of 32 random bytes by id; the first one is `current` unless `sealing` is off.

    Raises:
        ConfigurationError: there is none, or an id or a key does not fit.
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
        """Read keys as they stand in the setting, or in the file that it names."""
        keys: dict[str, bytes] = {}
        entries = [each.strip() for each in re.split(r"[,\n]", _read_content(text)) if each.strip()]
        encrypting = entries[:1] != [NO_CURRENT_KEY]
        for position, entry in enumerate(entries, 1):
            if position > 1 or encrypting:
                key_id, key = _parse_entry(entry, position)
                if key_id in keys:
                    raise _invalid_setting(f"the id of entry {position} stands there twice")
                keys[key_id] = key
        return cls(keys, encrypting=encrypting)

    def __getitem__(self, key_id: str) -> bytes:
        return self._keys[key_id]

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)}; {self.current_key_id} seals)"


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
        f"{SETTING_NAME} does not fit: {problem}. Write id=base64 for each key, the first one"
        " seals;"
        " `openssl rand -base64 32` makes one."
    )
