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
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
SETTING = "SAGA_ENGINE_PAYLOAD_KEYS"


ALGORITHM = "aes-gcm-1"


def mark_of(key_id: str) -> str:
    """How every text begins that this key sealed."""
    return f"{ALGORITHM}.{key_id}."


NONE = "none"
"""What stands in the place of the first key when none is to seal."""


class KeyRing:
    """
    Keys of 32 random bytes by id; the first one is `current` unless `sealing` is off.

    Raises:
        ConfigurationError: there is none, or an id or a key does not fit.
    """

    def __init__(self, keys: Mapping[str, bytes], *, sealing: bool = True) -> None:
        for place, (key_id, key) in enumerate(keys.items(), 1):
            if not KEY_ID.fullmatch(key_id):
                raise _refusal(f"the id of entry {place} is not 1 to 64 letters, digits, - and _")
            if len(key) != KEY_BYTES:
                raise _refusal(f"the key of entry {place} has {len(key)} bytes, not {KEY_BYTES}")
        if not keys:
            raise _refusal("it holds no key")
        self._keys = dict(keys)
        self.current = next(iter(keys)) if sealing else None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read keys as they stand in the setting, or in the file that it names."""
        keys: dict[str, bytes] = {}
        entries = [each.strip() for each in re.split(r"[,\n]", _content(text)) if each.strip()]
        sealing = entries[:1] != [NONE]
        for place, entry in enumerate(entries, 1):
            if place > 1 or sealing:
                key_id, key = _entry(entry, place)
                if key_id in keys:
                    raise _refusal(f"the id of entry {place} stands there twice")
                keys[key_id] = key
        return cls(keys, sealing=sealing)

    def __getitem__(self, key_id: str) -> bytes:
        return self._keys[key_id]

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)}; {self.current} seals)"


def _content(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(f"its file cannot be read ({type(error).__name__})") from None


def _entry(entry: str, place: int) -> tuple[str, bytes]:
    key_id, equals, key = entry.partition("=")
    if not equals or not KEY_ID.fullmatch(key_id):
        raise _refusal(f"entry {place} is not id=base64")
    try:
        return key_id, base64.b64decode(key, validate=True)
    except ValueError:
        raise _refusal(f"the key of entry {place} is not base64") from None


def _refusal(problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{SETTING} does not fit: {problem}. Write id=base64 for each key, the first one seals;"
        " `openssl rand -base64 32` makes one."
    )
