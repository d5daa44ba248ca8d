from sqlalchemy import text

from saga_engine.store.database import Database
from saga_engine.telemetry.events import RunFinished


async def test_the_token_key_is_rotated_on_record_and_once_in_its_delay(engine):
    ran = await engine("rotate-token-key", "--reason", "the quarter", "--operator", "ann")
    assert (ran.code, "The new key signs from" in ran.out) == (0, True), ran.err
    again = await engine("rotate-token-key", "--reason", "the quarter", "--operator", "ann")
    assert (again.code, "Rotate again from 20" in again.err) == (4, True)
    await engine.started("greet")
    await engine.facts.until(RunFinished)
    async with (
        Database(engine.settings.require_database_url(), engine.settings) as database,
        database.transaction() as tx,
    ):
        kept = text("SELECT operator, action, reason, outcome, message FROM saga_engine.audit")
        [act] = await tx.execute(kept)
    assert act[:4] == ("ann", "rotate-token-key", "the quarter", "accepted")
    assert act[4] == ran.out.strip()
