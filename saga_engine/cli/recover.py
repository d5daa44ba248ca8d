"""`saga-engine recover`: after the broker was lost, or the database was restored from a backup."""

from saga_engine.cli.operator import By, Reason, whoever
from saga_engine.cli.output import AsJson, document, line
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, recovery
from saga_engine.store.audit import Act, Verdict
from saga_engine.store.database import Database


async def recover(*, reason: Reason, by: By = None, as_json: AsJson = False) -> None:
    """
    Send again, now, every command that a run awaits an answer to.

    Without it each is sent again when its timeout is over, as another attempt; with it at once and
    under the same attempt. Safe at any time: a participant answers what it has done already.
    """
    act = Act(str(uuid7()), whoever(by), "recover", reason)
    settings = Settings.load()
    async with Database(settings.require_database(), settings) as opened:
        async with opened.transaction() as tx:
            await audit.record(tx, [act])
        done = await recovery.order_again(opened)
        told = f"{done.commands} commands of {done.runs} runs are ordered again."
        async with opened.transaction() as tx:
            await audit.settle(tx, [Verdict(act.id, accepted=True, message=told)])
    if as_json:
        document({"action": act.action, "runs": done.runs, "commands": done.commands})
    else:
        line(f"{told} The next sweep of a worker sends them.")
