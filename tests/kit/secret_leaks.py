"""
Secrets planted on purpose, and the search for them in the output of programs.

A canary is letters and digits only, so that no escaping hides it. It is also looked for in
hexadecimal and in base64, at every position in the encoded text.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path


def make_canary(what: str) -> str:
    """Make a secret that occurs nowhere else; `what` says where it was planted."""
    return f"canary{what}{secrets.token_hex(8)}"


def find_leaks(printed: Mapping[str, str], planted: Iterable[str | bytes]) -> list[str]:
    """Find each planted secret in each text, as `where:line: line`; none is what one hopes for."""
    shapes = [shape for secret in planted for shape in _encodings(secret)]
    return [
        f"{where}:{number}: {line[:500]}"
        for where, text in printed.items()
        for number, line in enumerate(text.splitlines(), 1)
        if any(shape in line for shape in shapes)
    ]


def find_leaks_in_files(directory: Path, planted: Iterable[str | bytes]) -> list[str]:
    """Find each planted secret in every file below a directory."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    assert files, f"nothing was printed into {directory}"
    printed = {str(path): path.read_text(errors="replace") for path in files}
    return find_leaks(printed, planted)


def _encodings(secret: str | bytes) -> list[str]:
    raw = secret.encode() if isinstance(secret, str) else secret
    # Of three bytes base64 makes four characters, so a part of it depends on where they begin.
    encoded = [b64encode(b"." * start + raw)[4 if start else 0 : -4].decode() for start in range(3)]
    plain = [secret] if isinstance(secret, str) else [repr(secret)[2:-1]]
    return [
        *plain,
        raw.hex(),
        *encoded,
        *(each.replace("+", "-").replace("/", "_") for each in encoded),
    ]
