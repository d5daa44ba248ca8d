"""
Redact passwords in texts, and escape characters that could forge log lines.

Every text in logs (`logs.sanitize_values`) and on the HTTP port (`endpoint`) passes through here.
The correlation id of a command is masked before, by `protocol.token.redact_token`.
"""

import re

# Each pattern takes linear time: a sender can cause any text to be shown.
_WORD = re.compile(r"[^\s'\"]+")
_URL_USER = re.compile(r"://[^:/@]*:")
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)\b((?:\w*(?:password|passwd|passfile|secret|token|api_?key)|pwd)[\"']?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s&,;'\")}\]]+)"
)
# C0, DEL and C1, line and paragraph separators, direction marks and overrides, lone surrogates.
_UNSAFE_CHARACTERS = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def redact_secrets(text: str) -> str:
    """*text* with `***` for passwords in URLs and for values assigned to a password or token."""
    if "=" not in text and ":" not in text:
        return text  # fast path: most values are ids and names
    if "://" in text:
        text = _WORD.sub(_redact_url_password, text)
    return _SECRET_ASSIGNMENT.sub(r"\1***", text)


def sanitize_line(text: str, *, max_length: int = 2000) -> str:
    """
    *text* with escapes for characters that end a line, move the cursor or change the direction.

    A text longer than *max_length* is truncated and gets an ellipsis.
    """
    if len(text) <= max_length and text.isprintable():
        return text
    escaped = _UNSAFE_CHARACTERS.sub(
        lambda found: found[0].encode("unicode_escape").decode(), text[:max_length]
    )
    return escaped if len(text) <= max_length else escaped + "…"


def _redact_url_password(word: re.Match[str]) -> str:
    text = word[0]
    end = text.rfind("@")
    user = _URL_USER.search(text, 0, max(end, 0))
    return f"{text[: user.end()]}***{text[end:]}" if user else text
