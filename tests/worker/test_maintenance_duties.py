"""Partitions, gauges, retention and the record of definitions."""

import asyncio
import json
import re
import subprocess
from uuid import uuid4

import yaml
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.events.read_models import read_models
from saga_engine.saga.definition import Saga
from saga_engine.store import definitions, run_queries
from saga_engine.telemetry.events import (
    BacklogCounted,
    ReaderPassedOver,
    RetentionMeasured,
)
from saga_engine.telemetry.metrics import Metrics
from saga_engine.vocabulary import Status
from tests.kit.command_line import exit_code_of, read_log_until, running_command, saga_engine
from tests.kit.events import WAIT_TIMEOUT_S
from tests.kit.parcels import parcels
from tests.kit.partitions import insert_finished_run, partitions_of
from tests.kit.stored_runs import ORDERS
from tests.kit.telemetry_document import alerting_rules
from tests.telemetry.exposition import promtool
from tests.worker.versions import register_definitions, second_version

CONCURRENT_RUNS = 8
"""Runs in flight at each moment."""


class Load:
    """A client that keeps runs in flight: when one is at its second step, the next is started."""

    def __init__(self, client, participant):
        self.run_ids: list[str] = []
        self._client, self._participant = client, participant
        self._stop = asyncio.Event()

    async def run(self):
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT_RUNS):
                group.create_task(self._one_after_another())

    async def _one_after_another(self):
        while not self._stop.is_set():
            run_id = await self._client.start()
            self.run_ids.append(run_id)
            await self._participant.wait_for_commands(
                "parcel.send", len(self.run_ids) - CONCURRENT_RUNS + 1
            )

    async def wait_for_runs(self, runs):
        """Wait until *runs* more have been started."""
        await self._participant.wait_for_commands("parcel.pack", len(self.run_ids) + runs)

    def stop(self):
        self._stop.set()


async def eventually(database, query):
    """Wait until *query* returns something true in a transaction."""
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while True:
            async with database.transaction() as tx:
                if found := await query(tx):
                    return found


async def log_of(process, lines):
    while line := await process.stderr.readline():
        lines.append(json.loads(line))


async def all_completed(tx):
    left = text("SELECT count(*) FROM saga_engine.run WHERE status <> 'completed'")
    return (await tx.execute(left)).scalar_one() == 0


async def is_gone(tx):
    return not await partitions_of(tx, "2020_01")


async def drop_an_expired_month(engine, load):
    """Insert a run of an expired month under load, and wait until it is dropped; return its id."""
    await load.wait_for_runs(50)
    async with engine.database.transaction() as tx:
        number = (await definitions.register(tx, [ORDERS]))[ORDERS.name, ORDERS.version]
    old = await insert_finished_run(engine.database, number)
    await eventually(engine.database, is_gone)
    await load.wait_for_runs(50)
    load.stop()
    return old


async def test_an_expired_month_is_dropped_beside_a_worker_under_load(
    engine,
):
    """It succeeds within the attempts of one round, and no statement of the worker fails."""
    given = {"database_url": engine.database_url, "broker_url": engine.broker_url, **OFTEN}
    lines: list[dict[str, object]] = []
    async with (
        running_command("worker", "tests.kit.parcel_sagas", "--port", "0", **given) as worker,
        asyncio.TaskGroup() as group,
    ):
        await read_log_until(worker, "process.ready")
        group.create_task(log_of(worker, lines))
        load = Load(await engine.connect_client(), await engine.start_participant())
        loading = group.create_task(load.run())
        old = await drop_an_expired_month(engine, load)
        await loading
        await eventually(engine.database, all_completed)
        worker.terminate()
        assert await exit_code_of(worker) == 0
    assert [each for each in lines if each["event"] in TROUBLE] == []
    async with engine.database.transaction() as tx:
        assert await run_queries.find(tx, old) is None
        began = [await run_queries.find(tx, run_id) for run_id in load.run_ids]
    assert {each and each.status for each in began} == {Status.COMPLETED}


OFTEN = {"run_retention_days": "30", "maintenance_interval": "0.2", "poll_interval": "0.02"}


TROUBLE = ("database.unavailable", "internal_error.caught", "run.compensating", "incident.opened")
"""
Lines of a worker that lost a lock, a statement or a run. A round of months that had its tries and
no lock would be one of them.
"""


async def test_a_hanging_count_does_not_delay_the_partitions(engine):
    last = text(
        "SELECT max(substr(relname, 5)) FROM pg_class WHERE relname ~ '^run_[0-9]{4}_[0-9]{2}$'"
    )
    hangs = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%saga_engine.dead_letter AS l%' AND datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )

    async def counting(tx):
        return (await tx.execute(hangs)).scalar_one() == 1

    worker = await engine.start_worker(
        maintenance_interval=0.05, database_lock_timeout=600.0, database_transaction_timeout=600.0
    )
    async with engine.database.transaction() as other:
        await other.execute(text("LOCK TABLE saga_engine.dead_letter IN ACCESS EXCLUSIVE MODE"))
        await eventually(engine.database, counting)
        async with engine.database.transaction() as tx:
            month = (await tx.execute(last)).scalar_one()
            await tx.execute(
                text(f"DROP TABLE saga_engine.run_{month}, saga_engine.journal_{month}")
            )

        async def is_there(tx):
            return {f"run_{month}", f"journal_{month}"} <= await partitions_of(tx, month)

        await eventually(engine.database, is_there)
        async with engine.database.transaction() as tx:
            assert await counting(tx)
    await worker.stop()


async def test_runs_in_the_default_partition_are_on_the_gauge_of_the_alert(engine, tmp_path):
    await engine.start_participant()
    worker, client = (
        await engine.start_worker(maintenance_interval=0.05),
        await engine.connect_client(),
    )
    before = await rendered_gauge(worker)
    run_id = await client.start()
    await worker.events.wait_for_end(run_id)
    stray = text(
        "INSERT INTO saga_engine.run (run_id, started_at, finished_at, definition_id, status)"
        " SELECT CAST(:stray AS uuid), started_at, clock_timestamp(), definition_id, 'completed'"
        " FROM saga_engine.run"
    )
    async with engine.database.transaction() as tx:
        await tx.execute(stray, {"stray": str(uuid4())})
    await worker.events.wait_for(BacklogCounted, runs_in_default_partition=1)
    (name, number), (same, none) = await rendered_gauge(worker), before
    await worker.stop()
    async with engine.database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.run_default"))  # it has no journal
    assert (name, number, none) == (same, 1.0, 0.0)
    assert alerts(tmp_path, name, none) == []
    assert alerts(tmp_path, name, number) == ["SagaRunsInDefaultPartition"]


async def rendered_gauge(worker):
    """The gauge as /metrics renders it after the worker's next count: its name and its value."""
    counted = len(worker.events.matching(BacklogCounted))
    await worker.events.wait_for(BacklogCounted, counted + 1)
    metrics = Metrics()
    for event in worker.events:
        metrics(event)
    page, _ = metrics.render()
    [(name, value)] = re.findall(r"^(saga_runs_in_default\w*) (\S+)$", page.decode(), re.MULTILINE)
    return name, float(value)


def alerts(directory, series, value):
    """The alerts that fire when a series has had that value for half an hour."""
    (directory / "rules.yml").write_text(alerting_rules())
    names = [
        each["alert"]
        for group in yaml.safe_load(alerting_rules())["groups"]
        for each in group["rules"]
    ]
    fired = []
    for name in names:
        test = {
            "rule_files": ["rules.yml"],
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [
                        {"series": f'{series}{{instance="w"}}', "values": f"{value}x30"}
                    ],
                    "alert_rule_test": [{"eval_time": "30m", "alertname": name, "exp_alerts": []}],
                }
            ],
        }
        (directory / "test.yml").write_text(yaml.safe_dump(test))
        ran = subprocess.run(
            [promtool(), "test", "rules", "test.yml"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0 or "got:[" in re.sub(r"\s", "", ran.stderr + ran.stdout), ran
        fired += [name] if ran.returncode else []
    return fired


async def test_a_worker_refreshes_the_record_of_its_definitions(engine):
    await engine.start_worker(worker_heartbeat_interval=0.05)
    gone = text(
        "UPDATE saga_engine.definition"
        " SET last_seen = now() - interval '1 hour', present_until = now() - interval '1 hour'"
    )
    async with engine.database.transaction() as tx:
        await tx.execute(gone)
    here = text("SELECT present_until > now() AND last_seen < now() FROM saga_engine.definition")
    async with asyncio.timeout(60):
        said = False
        while not said:
            async with engine.database.transaction() as tx:
                said = (await tx.execute(here)).scalar_one()


async def test_a_stranded_start_is_dead_lettered(engine):
    await register_definitions(engine, parcels())
    async with engine.database.transaction() as tx:
        old = str(
            (
                await start_in_transaction(
                    tx.connection, second_version(), {"n": 1, "address": "x"}, key="o-1"
                )
            ).run_id
        )
        known = str(
            (await start_in_transaction(tx.connection, changed_name(), {}, key="o-1")).run_id
        )
        await tx.execute(
            text("UPDATE saga_engine.pending_request SET received_at = now() - interval '8 days'")
        )
        new = str(
            (
                await start_in_transaction(
                    tx.connection, second_version(), {"n": 1, "address": "x"}, key="o-2"
                )
            ).run_id
        )
    await register_definitions(engine, changed_name())
    worker = await engine.start_worker(maintenance_interval=0.05)
    await worker.events.wait_for_dead_letter("unknown_saga", run_id=old)
    async with engine.database.transaction() as tx:
        waiting = (
            await tx.execute(text("SELECT run_id::text FROM saga_engine.pending_request"))
        ).scalars()
        assert set(waiting) == {known, new}
        assert await run_queries.find_by_key(tx, "parcel", "o-1") is None
        assert await run_queries.find_by_key(tx, "parcel", "o-2") == new
        assert await run_queries.find_by_key(tx, "box", "o-1") == known


def changed_name():
    saga = Saga("box", version=1, input=dict)

    @saga.step(command="parcel.pack", reply=dict[str, str])
    def pack(parcel: dict) -> dict:
        return parcel

    return saga


async def test_projections_that_retention_waits_for_are_measured(engine, migrated_url):
    """And the ones that it has passed over are named once, and stay in the metrics."""
    worker = await engine.start_worker(
        maintenance_interval=0.05, run_retention_days=30, retention_hold=3600.0
    )
    async with engine.database.transaction() as tx:
        ids = await definitions.register(tx, [ORDERS])
        await read_models.register(tx)
    await insert_finished_run(engine.database, ids[ORDERS.name, ORDERS.version])
    names = {("projection", model.name) for model in read_models.READ_MODELS}
    metrics = Metrics()
    measured = await worker.events.wait_until(
        lambda event: isinstance(event, RetentionMeasured) and event.held_s.keys() == names
    )
    metrics(measured)
    held, _ = metrics.render()
    assert b'saga_retention_held_seconds{kind="projection",reader="saga-engine-' in held
    late = "UPDATE saga_engine.projection SET updated_at = clock_timestamp() - interval '1 day'"
    async with engine.database.transaction() as tx:
        await tx.execute(text(late))
    passed = await worker.events.wait_for(ReaderPassedOver, len(names))
    assert {(each.kind, each.name) for each in passed} == names
    metrics(
        await worker.events.wait_until(
            lambda event: isinstance(event, RetentionMeasured) and event.incomplete == names
        )
    )
    after, _ = metrics.render()
    assert b"saga_retention_held_seconds{" not in after
    assert after.count(b"saga_retention_incomplete{") == len(names)
    listed = await saga_engine("projections", "list", "--json", database_url=migrated_url)
    assert all(each["missing_until"] for each in listed.json["projections"])
    name = read_models.READ_MODELS[0].name
    shown = await saga_engine("projections", "show", name, "--json", database_url=migrated_url)
    assert shown.json["projection"]["runs_complete_from"] > 1
