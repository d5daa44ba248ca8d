import re

from sqlalchemy import text

from saga_engine.cli import runs
from saga_engine.decider.run import StepStatus
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import AttemptSent, RetryScheduled, RunFinished
from saga_engine.vocabulary import Status


async def test_runs_are_filtered_by_status_saga_and_key(engine):
    held = await engine.start_run("held", "Ann", "--key", "h")
    await engine.start_run("greet", "Ann", "--key", "g")
    await engine.events.wait_for_next(RunFinished)
    for choice in (("--status", "running"), ("--saga", "held"), ("--key", "h")):
        found = (await engine("list", *choice, "--json")).json["runs"]
        assert [run["run_id"] for run in found] == [held]
    assert (await engine("list", "--key", "none", "--json")).json["runs"] == []


async def test_tables_are_separated_by_tabs_outside_a_terminal(engine):
    run_id = await engine.start_run("greet", "Ann", "--key", "a")
    await engine.events.wait_for_next(RunFinished)
    header, row = (await engine("list")).out.splitlines()
    assert header.split("\t")[:3] == ["run", "saga", "version"]
    assert row.split("\t")[:5] == [run_id, "greet", "1", "a", "completed"]
    shown = await engine("show", run_id)
    assert "say\tcompensatable\tsucceeded\t1\t-\t-\t-" in shown.out
    assert "waiting for" not in shown.out
    heading = "revision\tposition\tat\tevent\tstep"
    journal = shown.out[shown.out.index(heading) :].splitlines()[1:]
    cells = [line.split("\t") for line in journal]
    assert [(row[0], *row[3:]) for row in cells] == [
        ("1", "run_started", "-"),
        ("1", "attempt_started", "say"),
        ("2", "step_succeeded", "say"),
        ("2", "run_completed", "-"),
    ]
    positions = [int(row[1]) for row in cells]
    assert positions == sorted(set(positions))
    assert (shown.exit_code, shown.err) == (0, "")


async def test_show_prints_the_awaited_reply_and_its_deadline(engine):
    run_id = await engine.start_run("held")
    await engine.events.wait_for_next(AttemptSent)
    shown = await engine("show", run_id)
    assert re.search(
        r"^waiting for  hold: the reply to greeter\.hold, until \S+ \S+$", shown.out, re.MULTILINE
    )


async def test_show_prints_when_a_command_is_sent_again(engine):
    run_id = await engine.start_run("greet", "deaf")
    await engine.events.wait_for_next(RetryScheduled)
    shown = await engine("show", run_id)
    assert re.search(
        r"^waiting for  say: to send greeter\.greet again, at \S+ \S+$", shown.out, re.MULTILINE
    )


async def test_show_prints_a_damaged_run_and_what_to_do_next(engine, migrated_url):
    run_id = await engine.start_run("greet", "Ann")
    await engine.events.wait_for_next(RunFinished)
    other = await engine.start_run("greet", "Bob")
    await engine.events.wait_for_next(RunFinished)
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        damage = (
            "UPDATE saga_engine.journal SET events = '[7]' WHERE run_id = '{}' AND revision = 2"
        )
        await tx.execute(text(damage.format(run_id)))
    shown = await engine("show", run_id)
    assert (shown.exit_code, shown.err) == (0, "")
    assert "damaged      revision 2: its events cannot be read" in shown.out
    assert "Restore these rows of saga_engine.journal from a backup." in " ".join(shown.out.split())
    assert "1\t" in shown.out
    assert "run_started" in shown.out
    assert "unreadable" in shown.out
    as_json = (await engine("show", run_id, "--json")).json
    assert [each["revision"] for each in as_json["damage"]] == [2]
    assert (await engine("show", other, "--json")).json["damage"] == []
    assert len((await engine("list", "--json")).json["runs"]) == 2


def test_an_abandoned_run_waits_for_nothing(capsys):
    done = {"command": "x.do", "status": StepStatus.IN_FLIGHT, "attempts": 1, "error": None}
    step = {"name": "x", "kind": "compensatable", "due_at": None, "compensation": None, **done}
    shown = dict.fromkeys(
        ("run_id", "saga", "version", "key", "started_at", "finished_at", "cause")
    )
    shown |= {"steps": [step], "incidents": [], "journal": [], "damage": []}
    runs._print_detail(shown | {"status": Status.ABANDONED})
    assert "waiting for" not in capsys.readouterr().out
    runs._print_detail(shown | {"status": Status.RUNNING})
    assert "waiting for" in capsys.readouterr().out
