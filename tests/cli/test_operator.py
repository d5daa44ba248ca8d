import asyncio
from uuid import uuid4

from saga_engine.client import start_in_transaction
from saga_engine.store import audit, run_queries
from saga_engine.store.database import Database
from saga_engine.telemetry.events import IncidentOpened, RunFinished
from tests.kit.command_line import saga_engine
from tests.kit.greeter import held_saga, run_services, worker

WHY = ("--reason", "seen on the phone", "--operator", "ann")


async def start_stuck_run(engine):
    run_id = await engine.start_run("stuck")
    await engine.events.wait_for_next(IncidentOpened)
    return run_id


async def test_a_cancelled_run_is_in_the_audit_log(engine):
    run_id = await engine.start_run("held")
    await engine.greeter.hold_started.wait()
    ran = await engine("cancel", run_id, *WHY)
    assert ran.exit_code == 0, ran.err
    engine.greeter.may_finish.set()
    await engine.events.wait_for_next(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert (shown["status"], shown["cause"]["operator"]) == ("compensated", "ann")
    (action,) = shown["audit"]
    assert (action["operator"], action["action"], action["reason"], action["outcome"]) == (
        "ann",
        "cancel",
        "seen on the phone",
        "accepted",
    )


async def test_an_impossible_cancel_exits_4_and_an_unknown_run_exits_3(engine):
    run_id = await engine.start_run("greet")
    await engine.events.wait_for_next(RunFinished)
    done = await engine("cancel", run_id, *WHY)
    assert (done.exit_code, "completed already" in done.err) == (4, True)
    forward = await engine("cancel", await start_stuck_run(engine), *WHY)
    assert (forward.exit_code, "the run can only go forward" in forward.err) == (4, True)
    missing = await engine("cancel", uuid4(), *WHY)
    assert (missing.exit_code, "There is no run" in missing.err) == (3, True)
    silent = await engine("cancel", run_id)
    assert (silent.exit_code, "--reason" in silent.err) == (2, True)


async def test_an_incident_is_listed_and_skipped(engine):
    run_id = await start_stuck_run(engine)
    (incident,) = (await engine("incidents", "--json")).json["incidents"]
    assert (incident["id"], incident["step"], incident["saga"]) == (f"{run_id}/1", "lose", "stuck")
    ran = await engine("resolve", f"{run_id}/1", "skip", *WHY, "--json")
    assert (ran.exit_code, ran.json["outcome"]) == (0, "accepted")
    await engine.events.wait_for_next(RunFinished)
    assert (await engine("incidents", "--json")).json["incidents"] == []
    (resolved,) = (await engine("incidents", "--all", "--json")).json["incidents"]
    assert (resolved["resolution"], resolved["operator"]) == ("skip", "ann")
    again = await engine("resolve", f"{run_id}/1", "skip", *WHY)
    assert (again.exit_code, "resolved already: skip by ann" in again.err) == (4, True)


async def test_a_result_that_cannot_be_stored_unchanged_is_refused(engine):
    run_id = await start_stuck_run(engine)
    for result, problem in (
        ('{"n": 18446744073709551616}', "beyond 64 bits"),
        ('{"n": "\\u0000"}', "or NUL"),
        ("[" * 70 + "]" * 70, "max_body_depth allows"),
    ):
        ran = await engine("resolve", run_id, "complete", "--result", result, *WHY)
        assert (ran.exit_code, problem in ran.err) == (2, True), ran.err
    assert len((await engine("incidents", "--json")).json["incidents"]) == 1


async def test_a_run_id_names_its_only_open_incident(engine):
    run_id = await start_stuck_run(engine)
    ran = await engine("resolve", run_id, "complete", "--result", '{"found": true}', *WHY)
    assert ran.exit_code == 0, ran.err
    await engine.events.wait_for_next(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert (shown["status"], shown["result"]["lose"]) == ("completed", {"found": True})
    none = await engine("resolve", run_id, "retry", *WHY)
    assert (none.exit_code, "no open incident" in none.err) == (3, True)


async def test_a_retry_that_fails_again_opens_the_next_incident(engine):
    run_id = await start_stuck_run(engine)
    assert (await engine("resolve", run_id, "retry", *WHY)).exit_code == 0
    await engine.events.wait_for_next(IncidentOpened)
    (incident,) = (await engine("incidents", "--json")).json["incidents"]
    assert incident["id"] == f"{run_id}/2"
    assert (await engine("resolve", run_id, "abandon", *WHY)).exit_code == 0
    assert (await engine("wait", run_id)).exit_code == 6


async def test_an_invalid_incident_or_action_is_one_sentence(engine):
    run_id = await start_stuck_run(engine)
    for typed, action, code, words in (
        (f"{run_id}/9", "skip", 3, "There is no incident"),
        (f"{run_id}/x", "skip", 2, "is not the number of an incident"),
        ("o-1", "skip", 2, "is not a run id"),
        (run_id, "undo", 2, "retry"),
    ):
        ran = await engine("resolve", typed, action, *WHY)
        assert (ran.exit_code, words in ran.err, len(ran.err.splitlines())) == (code, True, 1)
    surplus = await engine("resolve", run_id, "skip", "--result", "{}", *WHY)
    assert (surplus.exit_code, "--result goes with complete" in surplus.err) == (2, True)


async def test_an_action_not_decided_in_time_is_decided_later(engine):
    run_id = await start_stuck_run(engine)
    ran = await saga_engine(
        *("resolve", run_id, "skip", *WHY),
        database_url=engine.settings.require_database_url(),
        client_timeout="0.001",
    )
    assert (ran.exit_code, "It is recorded, and the next worker" in ran.err) == (124, True)
    await engine.events.wait_for_next(RunFinished)


async def test_without_a_worker_a_start_waits_in_its_queue(settings):
    async with worker(settings) as working, run_services(working):
        pass  # it has declared its queues, and has stopped
    started = await saga_engine(
        *("start", "greet", "--input", '{"name": "Ann"}'),
        broker_url=settings.require_broker_url(),
        client_timeout="0.5",
    )
    assert (started.exit_code, "No worker answered in 0.5 seconds" in started.err) == (124, True)
    timed_out = await saga_engine(
        *("start", "greet", "--input", '{"name": "Ann"}', "--wait", "--timeout", "0.3"),
        broker_url=settings.require_broker_url(),
    )
    assert (timed_out.exit_code, "No worker answered in 0.3 seconds" in timed_out.err) == (
        124,
        True,
    )


async def test_waiting_commands_report_an_open_incident(engine):
    run_id = await start_stuck_run(engine)
    started = ("start", "stuck", "--input", '{"name": "Bo"}', "--wait")
    async with asyncio.TaskGroup() as group:
        commands = [
            group.create_task(engine(*typed, "--timeout", "8", client_poll_interval="0.2"))
            for typed in (("wait", run_id), started)
        ]
    for ran in (command.result() for command in commands):
        assert ran.exit_code == 124
        assert ran.err.count(", incident ") == 2  # while it waits, and in the final error
        assert "unroutable at step lose (action), since 20" in ran.err
        assert "Bo" not in ran.err


async def test_a_start_that_no_worker_can_run_is_cancelled_without_a_worker(settings):
    """The service was deployed before a worker with its saga."""
    url = settings.require_database_url()
    async with Database(url, settings) as database, database.transaction() as tx:
        run_id = str(
            (
                await start_in_transaction(tx.connection, held_saga, {"name": "Ann"}, key="o-1")
            ).run_id
        )
    ran = await saga_engine("cancel", run_id, *WHY, "--json", database_url=url)
    assert (ran.exit_code, ran.json["outcome"], ran.json["action"]) == (0, "accepted", "cancel")
    assert ran.json["message"].startswith("The run did not begin")
    async with Database(url, settings) as database, database.transaction() as tx:
        assert await run_queries.find_by_key(tx, "held", "o-1") is None
        [action] = await audit.list_for_run(tx, run_id)
    assert (action.operator, action.reason, action.outcome) == ("ann", WHY[1], "accepted")
    again = await saga_engine("cancel", run_id, *WHY, database_url=url)
    assert (again.exit_code, "There is no run" in again.err) == (3, True)
