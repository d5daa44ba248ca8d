"""`saga-engine recover`: after the broker lost its data, or the database was restored."""

from saga_engine.cli.operator import Operator, Reason, operator_or_login_name
from saga_engine.cli.output import AsJson, print_json, print_line
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, recovery
from saga_engine.store.audit import ActionKind, ActionOutcome, AuditOutcome, OperatorAction
from saga_engine.store.database import Database


async def recover(*, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """
    Send every command in flight again, without waiting for its timeout.

    Without this, each command is sent again after its timeout and counts as another attempt; this
    sends it immediately as the same attempt. Safe at any time: a participant answers a command that
    it has already performed with its first reply.
    """
    audit_entry = OperatorAction(
        id=str(uuid7()),
        operator=operator_or_login_name(operator),
        action=ActionKind.RECOVER,
        reason=reason,
    )
    settings = Settings.load()
    async with Database(settings.require_database_url(), settings) as database:
        async with database.transaction() as tx:
            await audit.record(tx, [audit_entry])
        resent = await recovery.resend_in_flight(database)
        message = f"{resent.commands} commands of {resent.runs} runs will be sent again."
        async with database.transaction() as tx:
            await audit.record_outcomes(
                tx, [ActionOutcome(audit_entry.id, outcome=AuditOutcome.ACCEPTED, message=message)]
            )
    if as_json:
        print_json({"action": audit_entry.action, "runs": resent.runs, "commands": resent.commands})
    else:
        print_line(f"{message} A worker sends them within seconds.")
