import asyncio

from sqlalchemy import text

from saga_engine.store.database import Database
from saga_engine.telemetry.events import RunFinished

WHY = ("--reason", "the broker was rebuilt", "--operator", "ann")


async def test_commands_in_flight_are_sent_again_and_recorded(engine):
    run_id = await engine.start_run("held")
    await engine.greeter.hold_started.wait()
    ran = await engine("recover", *WHY, "--json")
    assert ran.exit_code == 0, ran.err
    assert (ran.json["action"], ran.json["runs"], ran.json["commands"]) == ("recover", 1, 1)
    engine.greeter.may_finish.set()
    await engine.events.wait_for_next(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert shown["status"] == "completed"
    async with (
        Database(engine.settings.require_database_url(), engine.settings) as database,
        database.transaction() as tx,
    ):
        columns = "operator, action, reason, message"
        [recorded] = await tx.execute(text(f"SELECT {columns} FROM saga_engine.audit"))
    assert recorded[:3] == ("ann", "recover", "the broker was rebuilt")
    assert "1 commands of 1 runs" in recorded[3]


async def test_recover_needs_a_reason_and_no_worker(engine):
    async with asyncio.TaskGroup() as group:
        plain = group.create_task(engine("recover", *WHY))
        silent = group.create_task(engine("recover"))
    assert (plain.result().exit_code, "0 commands of 0 runs" in plain.result().out) == (0, True)
    assert (silent.result().exit_code, "--reason" in silent.result().err) == (2, True)
