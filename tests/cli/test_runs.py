import re
from uuid import uuid4

from saga_engine.cli import runs
from saga_engine.decider.run import StepStatus
from saga_engine.telemetry.events import AttemptSent, RetryScheduled, RunFinished
from saga_engine.vocabulary import Status
from tests.kit.command_line import saga_engine


async def test_runs_are_listed_in_pages_the_newest_first(engine):
    ids = [await engine.start_run("greet", name, "--key", name) for name in ("a", "b", "c")]
    await engine.events.wait_for(RunFinished, 3)
    listed = (await engine("list", "--json")).json
    assert [run["run_id"] for run in listed["runs"]] == ids[::-1]
    assert listed["next"] is None
    assert {run["status"] for run in listed["runs"]} == {"completed"}
    page = (await engine("list", "--limit", 2, "--json")).json
    rest = (await engine("list", "--limit", 2, "--after", page["next"], "--json")).json
    assert [run["key"] for run in page["runs"] + rest["runs"]] == ["c", "b", "a"]
    assert (page["total"], rest["total"], rest["next"]) == (3, 3, None)
    summary = (await engine("list", "--limit", 2, "--saga", "greet")).err
    assert summary == (
        f"2 of 3 runs. Next page: saga-engine list --saga greet --limit 2 --after {page['next']}\n"
    )


async def test_runs_are_filtered_by_status_saga_and_key(engine):
    held = await engine.start_run("held", "Ann", "--key", "h")
    await engine.start_run("greet", "Ann", "--key", "g")
    await engine.events.wait_for(RunFinished)
    for choice in (("--status", "running"), ("--saga", "held"), ("--key", "h")):
        found = (await engine("list", *choice, "--json")).json["runs"]
        assert [run["run_id"] for run in found] == [held]
    assert (await engine("list", "--key", "none", "--json")).json["runs"] == []


async def test_a_run_is_shown_with_its_steps_and_its_journal(engine):
    run_id = await engine.start_run("greet", "unknown")
    await engine.events.wait_for(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert shown["status"] == "compensated"
    assert shown["cause"]["code"] == "rejected"
    (step,) = shown["steps"]
    assert {name: step[name] for name in ("name", "kind", "status", "attempts")} == {
        "name": "say",
        "kind": "compensatable",
        "status": "rejected",
        "attempts": 1,
    }
    assert step["error"]["code"] == "unknown_name"
    assert (step["compensation"]["command"], step["compensation"]["status"]) == (
        "greeter.apologise",
        "pending",
    )
    assert [entry["revision"] for entry in shown["journal"]] == [1, 2, 3, 4, 5]
    assert [shown["journal"][index]["type"] for index in (0, -1)] == [
        "run_started",
        "run_compensated",
    ]
    assert all(entry["at"].endswith("Z") and "data" in entry for entry in shown["journal"])


async def test_tables_are_separated_by_tabs_outside_a_terminal(engine):
    run_id = await engine.start_run("greet", "Ann", "--key", "a")
    await engine.events.wait_for(RunFinished)
    header, row = (await engine("list")).out.splitlines()
    assert header.split("\t")[:3] == ["run", "saga", "version"]
    assert row.split("\t")[:5] == [run_id, "greet", "1", "a", "completed"]
    shown = await engine("show", run_id)
    assert "say\tcompensatable\tsucceeded\t1\t-\t-\t-" in shown.out
    assert "waiting for" not in shown.out


async def test_show_prints_the_awaited_reply_and_its_deadline(engine):
    run_id = await engine.start_run("held")
    await engine.events.wait_for(AttemptSent)
    shown = await engine("show", run_id)
    assert re.search(
        r"^waiting for  hold: the reply to greeter\.hold, until \S+ \S+$", shown.out, re.MULTILINE
    )


async def test_show_prints_when_a_command_is_sent_again(engine):
    run_id = await engine.start_run("greet", "deaf")
    await engine.events.wait_for(RetryScheduled)
    shown = await engine("show", run_id)
    assert re.search(
        r"^waiting for  say: to send greeter\.greet again, at \S+ \S+$", shown.out, re.MULTILINE
    )


def test_an_abandoned_run_waits_for_nothing(capsys):
    done = {"command": "x.do", "status": StepStatus.IN_FLIGHT, "attempts": 1, "error": None}
    step = {"name": "x", "kind": "compensatable", "due_at": None, "compensation": None, **done}
    shown = dict.fromkeys(
        ("run_id", "saga", "version", "key", "started_at", "finished_at", "cause")
    )
    shown |= {"steps": [step], "incidents": [], "journal": []}
    runs._print_detail(shown | {"status": Status.ABANDONED})
    assert "waiting for" not in capsys.readouterr().out
    runs._print_detail(shown | {"status": Status.RUNNING})
    assert "waiting for" in capsys.readouterr().out


async def test_an_unknown_run_exits_3_and_an_invalid_id_exits_2(migrated_url):
    missing = await saga_engine("show", uuid4(), database_url=migrated_url)
    assert (missing.exit_code, "There is no run" in missing.err) == (3, True)
    wrong = await saga_engine("show", "o-1", database_url=migrated_url)
    assert (wrong.exit_code, "is not a run id" in wrong.err) == (2, True)
    empty = await saga_engine("list", database_url=migrated_url)
    assert (empty.exit_code, empty.out, empty.err) == (0, "", "No runs.\n")
    limit = await saga_engine("list", "--limit", 0, database_url=migrated_url)
    assert (limit.exit_code, "--limit is 1 to 1000" in limit.err) == (2, True)
    status = await saga_engine("list", "--status", "lost", database_url=migrated_url)
    assert (status.exit_code, "running" in status.err) == (2, True)


async def test_an_unusable_database_is_one_sentence(database_url):
    none = await saga_engine("list")
    assert (none.exit_code, "SAGA_ENGINE_DATABASE_URL is not set" in none.err) == (2, True)
    empty = await saga_engine("list", database_url=database_url)
    assert (empty.exit_code, "Run `saga-engine migrate`" in empty.err) == (5, True)
    away = await saga_engine("list", database_url="postgresql+asyncpg://u:secret7@127.0.0.1:1/d")
    assert (away.exit_code, "cannot be reached" in away.err) == (5, True)
    scheme = await saga_engine("list", database_url="postgresql://u@h/d")
    assert (scheme.exit_code, "must begin with postgresql+asyncpg://" in scheme.err) == (2, True)
    port = await saga_engine("list", database_url=f"{database_url}x")
    assert (port.exit_code, "The database URL cannot be read" in port.err) == (2, True)
    lost = await saga_engine("list", database_url=database_url.replace("test_", "lost_"))
    assert (lost.exit_code, "has no database of that name" in lost.err) == (5, True)
    for ran in (none, empty, away, scheme, port, lost):
        assert ran.out == ""
        assert len(ran.err.splitlines()) == 1
        assert "secret7" not in ran.err
