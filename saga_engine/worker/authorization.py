"""
Who may say what: the RabbitMQ users that may answer a command or ask for a run.

RabbitMQ lets a publisher put no user into `user_id` but its own (guide "Validated User-ID"), so it
is believed. Rule: the first pattern that fits decides, and what none fits is not checked. In a
pattern only `*` is special; `?` and `[` stand for themselves, as docs/security.md says. A pure
function of rules, name and user.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

SenderRules = Mapping[str, Sequence[str]]
"""Users by pattern, in the order they are looked at; `*` stands for any characters."""


def refusal_for(rules: SenderRules, name: str, user_id: str, *, permission: str) -> str:
    """
    Say why *user_id* may not send this; empty when it may.

    Args:
        name: the command of a reply, or the verb and the saga of a request.
        user_id: empty when the message named no user.
        may: what it is about, in the passive: "be answered", "be sent".
    """
    for pattern, users in rules.items():
        if _compiled_pattern(pattern).fullmatch(name):
            return "" if user_id in users else _refusal_text(name, users, user_id, permission)
    return ""


@lru_cache(maxsize=1000)
def _compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression: one cache entry for each pattern of the settings."""
    parts = re.split(r"\*+", pattern)
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)


def _refusal_text(name: str, users: Sequence[str], user_id: str, permission: str) -> str:
    allowed_senders = f"by {' or '.join(users)} only" if users else "by nobody"
    sender = f"from user {user_id}" if user_id else "without a user_id"
    return f"{name} may {permission} {allowed_senders}, and this came {sender}."
