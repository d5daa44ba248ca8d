"""`saga-engine rotate-token-key`: replace the key of correlation ids while workers run."""

from datetime import timedelta

from saga_engine.cli.database import open_database
from saga_engine.cli.operator import Operator, Reason, operator_or_login_name
from saga_engine.cli.output import AsJson, print_json, print_line
from saga_engine.errors import Conflict
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, engine_identity
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction


async def rotate_token_key(
    *, reason: Reason, operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Replace the key that signs correlation ids. Run this as the owner of the schema.

    Running workers load the new key and sign with it after SAGA_ENGINE_TOKEN_KEY_ACTIVATION_DELAY.
    Replies to commands signed with the previous key are accepted until the next rotation: to reject
    a leaked key, rotate again once the commands in flight are answered.
    """
    settings = Settings.load()
    audit_entry = OperatorAction(
        id=str(uuid7()),
        operator=operator_or_login_name(operator),
        action=ActionKind.ROTATE_TOKEN_KEY,
        reason=reason,
    )
    async with open_database(settings) as database, database.transaction() as tx:
        delay = timedelta(seconds=settings.token_key_activation_delay)
        active_from = await engine_identity.rotate_token_key(tx, delay)
        if active_from is None:
            allowed_from = await engine_identity.next_rotation_at(tx, delay)
            raise Conflict(
                "Nothing was changed: a worker may still sign with the key that the last rotation"
                " replaced, and the replies would be rejected. Rotate again from"
                f" {allowed_from:%Y-%m-%d %H:%M:%S} UTC, which is"
                " SAGA_ENGINE_TOKEN_KEY_ACTIVATION_DELAY after the last new key became active."
            )
        await audit.record(tx, [audit_entry])
        message = f"Workers sign with the new key from {active_from:%Y-%m-%d %H:%M:%S} UTC."
        await audit.record_outcomes(
            tx, [ActionOutcome(audit_entry.id, outcome=AuditOutcome.ACCEPTED, message=message)]
        )
    if as_json:
        print_json({"action": audit_entry.action, "active_from": active_from})
    else:
        print_line(message)
