from uuid import uuid4

from saga_engine.client import start_in_transaction
from saga_engine.store import audit, run_queries
from saga_engine.store.database import Database
from saga_engine.telemetry.events import IncidentOpened, RunFinished
from tests.cli.conftest import saga_engine
from tests.kit.greeter import held_saga, run_services, worker

WHY = ("--reason", "seen on the phone", "--operator", "ann")


async def stuck(engine):
    run_id = await engine.started("stuck")
    await engine.facts.until(IncidentOpened)
    return run_id


async def test_a_run_is_cancelled_on_record(engine):
    run_id = await engine.started("held")
    await engine.greeter.holding.wait()
    ran = await engine("cancel", run_id, *WHY)
    assert ran.code == 0, ran.err
    engine.greeter.let_go.set()
    await engine.facts.until(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert (shown["status"], shown["cause"]["operator"]) == ("compensated", "ann")
    (act,) = shown["audit"]
    assert (act["by"], act["action"], act["reason"], act["outcome"]) == (
        "ann",
        "cancel",
        "seen on the phone",
        "accepted",
    )


async def test_a_cancel_that_is_not_possible_exits_4_and_no_run_3(engine):
    run_id = await engine.started("greet")
    await engine.facts.until(RunFinished)
    done = await engine("cancel", run_id, *WHY)
    assert (done.code, "completed already" in done.err) == (4, True)
    forward = await engine("cancel", await stuck(engine), *WHY)
    assert (forward.code, "the run can only go forward" in forward.err) == (4, True)
    missing = await engine("cancel", uuid4(), *WHY)
    assert (missing.code, "There is no run" in missing.err) == (3, True)
    silent = await engine("cancel", run_id)
    assert (silent.code, "--reason" in silent.err) == (2, True)


async def test_an_incident_is_listed_and_skipped(engine):
    run_id = await stuck(engine)
    (incident,) = (await engine("incidents", "--json")).json["incidents"]
    assert (incident["id"], incident["step"], incident["saga"]) == (f"{run_id}/1", "lose", "stuck")
    ran = await engine("resolve", f"{run_id}/1", "skip", *WHY, "--json")
    assert (ran.code, ran.json["outcome"]) == (0, "accepted")
    await engine.facts.until(RunFinished)
    assert (await engine("incidents", "--json")).json["incidents"] == []
    (resolved,) = (await engine("incidents", "--all", "--json")).json["incidents"]
    assert (resolved["resolution"], resolved["by"]) == ("skip", "ann")
    again = await engine("resolve", f"{run_id}/1", "skip", *WHY)
    assert (again.code, "resolved already: skip by ann" in again.err) == (4, True)


async def test_a_result_that_would_be_altered_or_not_be_read_is_refused(engine):
    run_id = await stuck(engine)
    for result, problem in (
        ('{"n": 18446744073709551616}', "beyond 64 bits"),
        ('{"n": "\\u0000"}', "or NUL"),
        ("[" * 70 + "]" * 70, "max_body_depth allows"),
    ):
        ran = await engine("resolve", run_id, "complete", "--result", result, *WHY)
        assert (ran.code, problem in ran.err) == (2, True), ran.err
    assert len((await engine("incidents", "--json")).json["incidents"]) == 1


async def test_a_run_with_one_open_incident_names_it(engine):
    run_id = await stuck(engine)
    ran = await engine("resolve", run_id, "complete", "--result", '{"found": true}', *WHY)
    assert ran.code == 0, ran.err
    await engine.facts.until(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert (shown["status"], shown["result"]["lose"]) == ("completed", {"found": True})
    none = await engine("resolve", run_id, "retry", *WHY)
    assert (none.code, "no open incident" in none.err) == (3, True)


async def test_a_retry_that_fails_again_opens_the_next_incident(engine):
    run_id = await stuck(engine)
    assert (await engine("resolve", run_id, "retry", *WHY)).code == 0
    await engine.facts.until(IncidentOpened)
    (incident,) = (await engine("incidents", "--json")).json["incidents"]
    assert incident["id"] == f"{run_id}/2"
    assert (await engine("resolve", run_id, "abandon", *WHY)).code == 0
    assert (await engine("wait", run_id)).code == 6


async def test_what_cannot_be_resolved_is_one_sentence(engine):
    run_id = await stuck(engine)
    for typed, action, code, words in (
        (f"{run_id}/9", "skip", 3, "There is no incident"),
        (f"{run_id}/x", "skip", 2, "is no number of an incident"),
        ("o-1", "skip", 2, "is no run id"),
        (run_id, "undo", 2, "retry"),
    ):
        ran = await engine("resolve", typed, action, *WHY)
        assert (ran.code, words in ran.err, len(ran.err.splitlines())) == (code, True, 1)
    surplus = await engine("resolve", run_id, "skip", "--result", "{}", *WHY)
    assert (surplus.code, "--result goes with complete" in surplus.err) == (2, True)


async def test_what_no_worker_has_decided_in_time_is_decided_later(engine):
    run_id = await stuck(engine)
    ran = await saga_engine(
        *("resolve", run_id, "skip", *WHY),
        database_url=engine.settings.require_database_url(),
        client_timeout="0.001",
    )
    assert (ran.exit_code, "It is recorded and will be decided" in ran.err) == (124, True)
    await engine.facts.until(RunFinished)


async def test_without_a_worker_a_start_waits_in_its_queue(settings):
    async with worker(settings) as working, run_services(working):
        pass  # It has been there, and is gone.
    started = await saga_engine(
        *("start", "greet", "--input", '{"name": "Ann"}'),
        broker_url=settings.require_broker_url(),
        client_timeout="0.5",
    )
    assert (started.exit_code, "No worker answered in 0.5 seconds" in started.err) == (124, True)
    hurried = await saga_engine(
        *("start", "greet", "--input", '{"name": "Ann"}', "--wait", "--timeout", "0.3"),
        broker_url=settings.require_broker_url(),
    )
    assert (hurried.exit_code, "No worker answered in 0.3 seconds" in hurried.err) == (124, True)


async def test_who_waits_for_a_run_on_the_command_line_reads_that_it_waits_for_a_person(engine):
    run_id = await stuck(engine)
    for typed in (("wait", run_id), ("start", "stuck", "--input", '{"name": "Bo"}', "--wait")):
        ran = await engine(*typed, "--timeout", "8", client_ask_again="0.2")
        assert ran.code == 124
        assert ran.err.count("waits for a person, incident") == 2  # while it waits, and at the end
        assert "unroutable at step lose (action), since 20" in ran.err
        assert "Bo" not in ran.err


async def test_a_run_that_no_worker_can_begin_is_cancelled_without_one(settings):
    """The service was rolled out before the worker, and the worker never came."""
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
        [act] = await audit.list_for_run(tx, run_id)
    assert (act.operator, act.reason, act.outcome) == ("ann", WHY[1], "accepted")
    again = await saga_engine("cancel", run_id, *WHY, database_url=url)
    assert (again.exit_code, "There is no run" in again.err) == (3, True)
