"""`saga-engine recover`: after the broker was lost, or the database was restored from a backup."""

from saga_engine.cli.operator import Operator, Reason, operator_or_login_name
from saga_engine.cli.output import AsJson, print_json, print_line
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, recovery
from saga_engine.store.audit import ActionOutcome, OperatorAction
from saga_engine.store.database import Database


async def recover(*, reason: Reason, operator: Operator = None, as_json: AsJson = False) -> None:
    """
    Send again, now, every command that a run awaits an answer to.

    Without it each is sent again when its timeout is over, as another attempt; with it at once and
    under the same attempt. Safe at any time: a participant answers what it has done already.
    """
    audit_entry = OperatorAction(str(uuid7()), operator_or_login_name(operator), "recover", reason)
    settings = Settings.load()
    async with Database(settings.require_database_url(), settings) as database:
        async with database.transaction() as tx:
            await audit.record(tx, [audit_entry])
        resent = await recovery.resend_in_flight(database)
        message = f"{resent.commands} commands of {resent.runs} runs are ordered again."
        async with database.transaction() as tx:
            await audit.record_outcomes(
                tx, [ActionOutcome(audit_entry.id, accepted=True, message=message)]
            )
    if as_json:
        print_json({"action": audit_entry.action, "runs": resent.runs, "commands": resent.commands})
    else:
        print_line(f"{message} The next sweep of a worker sends them.")
