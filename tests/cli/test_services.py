import asyncio
import json
import re
import signal
from typing import Any

from tests.kit.command_line import (
    executed_command,
    exit_code_of,
    http_get,
    read_log_until,
    saga_engine,
)
from tests.kit.place_order import ORDER, SAGAS, SERVICES


async def test_a_worker_and_a_participant_run_an_example(urls):
    async with (
        executed_command("worker", SAGAS, "--port", "0", **urls) as worker,
        executed_command("participant", SERVICES, "--port", "0", **urls) as participant,
    ):
        listening = await read_log_until(worker, "http.listening")
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        ok, declined = json.dumps(ORDER | {"card": "ok"}), json.dumps(ORDER | {"card": "declined"})
        start = ("start", "place-order", "--wait", "--json", "--timeout", "30", "--input")
        done = await saga_engine(*start, ok, "--key", "o-1", **urls)
        assert (done.exit_code, done.json["status"], done.json["version"]) == (0, "completed", 1)
        compensated = await saga_engine(*start, declined, "--key", "o-2", **urls)
        assert (compensated.exit_code, compensated.json["status"]) == (6, "compensated")
        shown = (await saga_engine("show", compensated.json["run_id"], "--json", **urls)).json
        assert [(step["name"], step["status"]) for step in shown["steps"]] == [
            ("reserve", "succeeded"),
            ("charge", "rejected"),
            ("confirm", "pending"),
        ]
        assert shown["steps"][0]["compensation"]["status"] == "succeeded"
        where = f"http://{listening['event'].split()[1]}"
        assert await http_get(f"{where}/readyz") == (200, '{"status":"ok"}\n')
        _, metrics = await http_get(f"{where}/metrics")
        assert 'saga_runs_finished_total{outcome="compensated",saga="place-order"} 1.0' in metrics
        for process in (worker, participant):
            process.send_signal(signal.SIGTERM)
        assert [await exit_code_of(worker), await exit_code_of(participant)] == [0, 0]


async def test_a_process_that_cannot_start_names_the_problem(urls, database_url, rabbitmq_url):
    wrong = rabbitmq_url.replace("guest:guest", "guest:secret7")
    database = urls["database_url"]
    cases: tuple[tuple[tuple[str, ...], dict[str, Any], int, str], ...] = (
        (("worker", SAGAS), {}, 2, "SAGA_ENGINE_DATABASE_URL is not set"),
        (("worker", SAGAS), {"database_url": database}, 2, "SAGA_ENGINE_BROKER_URL is not set"),
        (("participant", SERVICES), {}, 2, "SAGA_ENGINE_BROKER_URL is not set"),
        (("worker",), urls, 2, "Name a module"),
        (("worker", "nowhere"), urls, 2, "There is no module 'nowhere'"),
        (("worker", SERVICES), urls, 2, "declares no Saga"),
        (("worker", SAGAS), urls | {"database_url": database_url}, 5, "saga-engine migrate"),
        (("worker", SAGAS), urls | {"broker_url": wrong}, 2, "refuses this user or password"),
        (("worker", SAGAS), urls | {"broker_url": "amqp://127.0.0.1:1/"}, 5, "out of reach"),
        (("worker", SAGAS, "--port", "70000"), urls, 2, "SAGA_ENGINE_HTTP_PORT"),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(saga_engine(*arguments, **given, http_port="0"))
            for arguments, given, _, _ in cases
        ]
    for task, (arguments, _, code, words) in zip(tasks, cases, strict=True):
        ran = task.result()
        assert (ran.exit_code, words in ran.err) == (code, True), (arguments, ran)
        (sentence,) = re.findall(r"^saga-engine: .*$", ran.err, re.MULTILINE)
        assert words in sentence
        assert "Traceback" not in ran.err
        assert "secret7" not in ran.err
