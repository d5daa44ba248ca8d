import asyncio

from sqlalchemy import text

from saga_engine.store.database import Database
from saga_engine.telemetry.events import RunFinished

WHY = ("--reason", "the broker was rebuilt", "--operator", "ann")


async def test_what_is_in_flight_is_ordered_again_on_record(engine):
    run_id = await engine.started("held")
    await engine.greeter.holding.wait()
    ran = await engine("recover", *WHY, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["action"], ran.json["runs"], ran.json["commands"]) == ("recover", 1, 1)
    engine.greeter.let_go.set()
    await engine.facts.until(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert shown["status"] == "completed"
    async with (
        Database(engine.settings.require_database_url(), engine.settings) as database,
        database.transaction() as tx,
    ):
        [act] = await tx.execute(
            text("SELECT operator, action, reason, message FROM saga_engine.audit")
        )
    assert act[:3] == ("ann", "recover", "the broker was rebuilt")
    assert "1 commands of 1 runs" in act[3]


async def test_it_is_done_without_a_worker_and_wants_a_reason(engine):
    async with asyncio.TaskGroup() as group:
        plain = group.create_task(engine("recover", *WHY))
        silent = group.create_task(engine("recover"))
    assert (plain.result().code, "0 commands of 0 runs" in plain.result().out) == (0, True)
    assert (silent.result().code, "--reason" in silent.result().err) == (2, True)
