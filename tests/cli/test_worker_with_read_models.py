"""`saga-engine worker --events` runs the read models, and goes on when one of them fails."""

import json
import signal
from typing import Any

from sqlalchemy import text

from saga_engine.events.read_models.read_models import READ_MODELS
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.events.read_models.step_durations import STEP_DURATION
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.command_line import (
    exit_code_of,
    http_get,
    read_log_until,
    running_command,
    saga_engine,
)
from tests.kit.place_order import ORDER, SAGAS, SERVICES
from tests.kit.projections import wait_for_position
from tests.kit.read_models import last_position, table_rows

FAST: dict[str, Any] = {"read_model_interval": "0.05", "projection_monitor_interval": "0.1"}
START = ("start", "place-order", "--wait", "--json", "--timeout", "30", "--input")


async def test_a_worker_fills_the_read_models_and_one_that_fails_does_not_end_it(urls):
    order = json.dumps(ORDER | {"card": "ok"})
    async with (
        Database(urls["database_url"], Settings()) as database,
        running_command("worker", SAGAS, "--events", "--port", "0", **FAST, **urls) as worker,
        running_command("participant", SERVICES, "--port", "0", **urls) as participant,
    ):
        listening = await read_log_until(worker, "http.listening")
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        done = await saga_engine(*START, order, **urls)
        assert done.json["status"] == "completed"
        for model in READ_MODELS:
            await wait_for_position(database, model.name, await last_position(database))
        counted = {row[1]: row[2] for row in await table_rows(database, RUN_STATISTICS)}
        assert counted == {"completed": 1, "running": 0}
        listed = (await saga_engine("projections", "list", "--json", **urls)).json["projections"]
        assert [each["name"] for each in listed] == [each.name for each in READ_MODELS]
        async with database.transaction() as tx:
            await tx.execute(text("ALTER TABLE saga_engine.run_statistics RENAME TO gone"))
        done = await saga_engine(*START, order, **urls)
        assert done.json["status"] == "completed"
        await wait_for_position(database, STEP_DURATION.name, await last_position(database))
        where = f"http://{listening['event'].split()[1]}"
        assert (await http_get(f"{where}/livez"))[0] == 200
        _, metrics = await http_get(f"{where}/metrics")
        assert f'saga_projection_state{{projection="{RUN_STATISTICS.name}"' in metrics
        worker.send_signal(signal.SIGTERM)
        assert await exit_code_of(worker) == 0


async def test_a_worker_without_the_option_runs_none(urls):
    async with running_command("worker", SAGAS, "--port", "0", **urls) as worker:
        await read_log_until(worker, "process.ready")
        listed = await saga_engine("projections", "list", "--json", **urls)
        assert listed.json["projections"] == []
        worker.send_signal(signal.SIGTERM)
        assert await exit_code_of(worker) == 0
