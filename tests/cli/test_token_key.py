from sqlalchemy import text

from saga_engine.store.database import Database
from saga_engine.telemetry.events import RunFinished


async def test_a_key_rotation_is_recorded_and_refused_again_within_the_delay(engine):
    ran = await engine("rotate-token-key", "--reason", "the quarter", "--operator", "ann")
    assert (ran.exit_code, "Workers sign with the new key from" in ran.out) == (0, True), ran.err
    again = await engine("rotate-token-key", "--reason", "the quarter", "--operator", "ann")
    assert (again.exit_code, "Rotate again from 20" in again.err) == (4, True)
    await engine.start_run("greet")
    await engine.events.wait_for_next(RunFinished)
    async with (
        Database(engine.settings.require_database_url(), engine.settings) as database,
        database.transaction() as tx,
    ):
        query = text("SELECT operator, action, reason, outcome, message FROM saga_engine.audit")
        [recorded] = await tx.execute(query)
    assert recorded[:4] == ("ann", "rotate-token-key", "the quarter", "accepted")
    assert recorded[4] == ran.out.strip()
