"""
Hostile message bodies by name, with the reason for which each is dead-lettered.

The number in a name is that in the list of hostile inputs in docs/reliability.md. A body without a
reason is valid JSON: its content must be stored unchanged and do no harm.
"""

import gzip
import pickle
from itertools import count

from saga_engine.protocol.dead_letter_reason import DeadLetterReason

_numbers = count()


def text(value: str) -> bytes:
    """A valid body; no two are equal."""
    return b'{"n":%d,"s":"%s"}' % (next(_numbers), value.encode())


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


MALFORMED = {
    "A1 empty": b"",
    "A2 one byte": b"{",
    "A3 truncated": b'{"did": "som',
    "A4 trailing garbage": b'{"did": "it"} x',
    "A4 two documents": b"{}{}",
    "A6 not UTF-8": b'{"did": "\xff\xfe"}',
    "A6 UTF-16": '{"did": "it"}'.encode("utf-16"),
    "A6 byte order mark": b'\xef\xbb\xbf{"did": "it"}',
    "A6 overlong UTF-8": b'{"did": "\xc0\xaf"}',
    "A6 surrogate in UTF-8": b'{"did": "\xed\xa0\x80"}',
    "A8 lone surrogate": b'{"did": "\\ud800"}',
    "A8 lone surrogate in a key": b'{"\\udfff": "it"}',
    "A9 NaN": b'{"did": NaN}',
    "A9 Infinity": b'{"did": -Infinity}',
    "A10 1e400000": b'{"did": 1e400000}',
    "A10 1e131071": b'{"did": 1e131071}',
    "A11 a million digits": b'{"did": 1' + b"0" * 250_000 + b"}",
    "A16 gzip without content_encoding": gzip.compress(b" " * 100_000_000, 1)[:200_000],
    "A17 pickle": pickle.dumps({"did": "it"}),
    "A17 yaml": b"!!python/object/apply:os.system ['touch pwned']",
    "A22 the HTML page of a proxy": b"<html><body>502 Bad Gateway</body></html>",
}
DEEP = {
    "A12 65 levels": nested(65),
    "A12 500 levels": nested(500),
    "A12 60,000 levels": nested(60_000),
    "A12 200,000 levels that never close": b"[" * 200_000,
}
NOT_STORABLE = {
    "A7 NUL in a value": b'{"did": "\\u0000"}',
    "A7 NUL in a key": b'{"\\u0000": "it"}',
    "A11 -2^63-1": b'{"n":"c","did":-9223372036854775809}',
    "A11 2^64+1": b'{"n":"c","did":18446744073709551617}',
}
MANY_VALUES = {
    "A10 numbers that are long without exponents": b"[1e308" + b",1e-300" * 30_000 + b"]",
    "A14 a million keys": b"{"
    + b",".join(b'"%d":0' % number for number in range(1_000_000))
    + b"}",
    "A14 60,000 values": b"[" + b",".join([b"{}"] * 60_000) + b"]",
    "A15 larger than max_body_bytes": b'{"did": "' + b"x" * 262_144 + b'"}',
    "A29 100,000 entries for a compensation": b"[" + b",".join([b'"item"'] * 100_000) + b"]",
}
NOT_AN_OBJECT = {
    "A5 null": b" null",
    "A5 a list": b" []",
    "A5 a text": b'"x"',
    "A5 a number": b"123",
    "A5 true": b"true",
}
"""Valid JSON, but neither a request nor a reply of a step."""

VALID = {
    "A6 the last character of Unicode": text("\U0010ffff"),
    "A11 2^53+1": b'{"n":"a","did":9007199254740993}',
    "A11 a double in full": b'{"n":"e","did":18446744073709552000}',
    "A11 2^63": b'{"n":"b","did":9223372036854775808}',
    "A11 4,301 digits": b'{"n":"d","did":1.' + b"0" * 4301 + b"}",
    "A12 64 levels": nested(64),
    "A13 duplicate keys": b'{"did": "first", "did": "last"}',
    "A15 the longest text": text("x" * 262_000),
    "A18 __proto__": b'{"__proto__": {"admin": true}, "constructor": {"prototype": 1}}',
    "A18 $ref and __class__": b'{"$ref": "file:///etc/passwd", "__class__": "os.system"}',
    "A19 path": text("../../etc/passwd"),
    "A19 SQL": text("' OR 1=1; DROP TABLE saga_engine.run;--"),
    "A19 right to left": text("\u202egpj.exe"),
    "A19 homoglyph and emoji": text("\u0440lace-\u043erder \U0001f600"),
    "A21 invalid dates": text("2024-02-30T25:61:00+99:99 0000-00-00"),
    "A24 HTML": text("<img src=x onerror=alert(1)></script><svg onload=x>javascript:x"),
    "A24 ANSI and line ends": b'{"did": "\\u001b[2J\\u001b]0;owned\\u0007\\r\\nforged:\\u009b"}',
    "A24 CSV": text("=cmd|' /C calc'!A0"),
    "A25 templates": text("{{7*7}} ${jndi:ldap://x} %s%n {0.__class__} #{7*7}"),
    "A28 input for slow regular expressions": text("://:" * 60_000),
    "A28 many similar keys": b"{" + b",".join(b'"%s":0' % (b"a" * n) for n in range(600)) + b"}",
}

REASONS: dict[str, tuple[bytes, DeadLetterReason | None]] = {
    **{name: (body, DeadLetterReason.MALFORMED_JSON) for name, body in MALFORMED.items()},
    **{name: (body, DeadLetterReason.TOO_DEEP) for name, body in DEEP.items()},
    **{name: (body, DeadLetterReason.NOT_STORABLE) for name, body in NOT_STORABLE.items()},
    **{name: (body, DeadLetterReason.TOO_LARGE) for name, body in MANY_VALUES.items()},
    **{name: (body, None) for name, body in (NOT_AN_OBJECT | VALID).items()},
}
"""Every body by its name, and the reason why it cannot be decoded, if there is one."""
