"""
Sender authorization: which RabbitMQ users may reply to a command or request a run.

It says why a sender may not; `batch_transaction` asks it, rejects the message and dead-letters it.

RabbitMQ lets a publisher set `user_id` to its own user only (guide "Validated User-ID"), so the
worker trusts it. The settings `authorized_reply_users` and `authorized_request_users` map patterns
to users. The first pattern that matches decides; a name that no pattern matches is not checked. In
a pattern only `*` is special; `?` and `[` are ordinary characters, as docs/security.md says.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from saga_engine.decider.triggers import Cancel, MalformedReply, ReplyReceived, Start
from saga_engine.protocol.request import RequestVerb
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.worker.work_item import WorkItem

SenderRules = Mapping[str, Sequence[str]]
"""Users by pattern, in the order in which the patterns are tried; `*` matches any characters."""


def sender_refusal(
    settings: Settings, work_item: WorkItem, saga_name: str, saga: Saga | None = None
) -> str:
    """
    Say why a work item's sender may not send it; empty when it may.

    A request that a role recorded in PostgreSQL has no sender and is not checked: the permissions
    of the database apply to it.

    Args:
        saga: the definition of the run, which names the command of a reply; None: not loaded.
    """
    if work_item.sender is None:
        return ""
    match work_item.trigger:
        case (
            ReplyReceived(step=step, direction=direction)
            | MalformedReply(step=step, direction=direction)
        ) if saga is not None:
            spec = saga.steps[step].command_spec(direction) if step in saga.steps else None
            command, rules = spec.command if spec else "", settings.authorized_reply_users
            return refusal_for(rules, command, work_item.sender, permission="be answered")
        case Start() | Cancel() as request:
            verb = RequestVerb.START if isinstance(request, Start) else RequestVerb.CANCEL
            name, rules = f"{verb} {saga_name}", settings.authorized_request_users
            return refusal_for(rules, name, work_item.sender, permission="be sent")
        case _:
            return ""


def refusal_for(rules: SenderRules, name: str, user_id: str, *, permission: str) -> str:
    """
    Say why *user_id* may not send this; empty when it may.

    Args:
        name: the command of a reply, or the verb and the saga of a request.
        user_id: empty when the message named no user.
        permission: what is refused, in the passive: "be answered", "be sent".
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
    allowed_senders = f"by {' or '.join(users)} only" if users else "by no user"
    sender = f"from user {user_id}" if user_id else "without a user_id"
    return f"{name} may {permission} {allowed_senders}, and this came {sender}."
