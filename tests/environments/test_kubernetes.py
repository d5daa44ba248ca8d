import json
import signal
from typing import Any

import pytest

from tests.environments.pod import kubernetes_variables
from tests.kit.command_line import executed_command, exit_code_of, read_log_until, saga_engine
from tests.kit.place_order import ORDER, SAGAS, SERVICES


@pytest.mark.parametrize(
    ("value", "port", "source"),
    [("tcp://10.96.0.2:9464", 9464, "default"), ("9465", 9465, "environment")],
)
async def test_config_show_names_the_source_of_a_port_named_like_a_service(value, port, source):
    ran = await saga_engine("config", "show", "--json", http_port=value)
    shown = {row["name"]: (row["value"], row["source"]) for row in ran.json["settings"]}
    assert shown["SAGA_ENGINE_HTTP_PORT"] == (port, source)


async def test_an_invalid_port_is_refused():
    ran = await saga_engine("config", "show", http_port="tcp:9464")
    assert (ran.exit_code, "SAGA_ENGINE_HTTP_PORT is invalid" in ran.err) == (2, True)


async def test_an_engine_runs_in_the_environment_of_a_pod(migrated_url, rabbitmq_url):
    urls = {"database_url": migrated_url, "broker_url": rabbitmq_url}
    pod: dict[str, Any] = {
        name.removeprefix("SAGA_ENGINE_"): value for name, value in kubernetes_variables().items()
    }
    async with (
        executed_command("worker", SAGAS, "--port", "0", **pod, **urls) as worker,
        executed_command("participant", SERVICES, "--port", "0", **pod, **urls) as participant,
    ):
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        order = json.dumps(ORDER | {"card": "ok"})
        done = await saga_engine(
            *("start", "place-order", "--wait", "--json", "--timeout", "60", "--input", order),
            **(pod | urls),
        )
        assert (done.exit_code, done.json["status"]) == (0, "completed"), done
        shown = await saga_engine("show", done.json["run_id"], "--json", **(pod | urls))
        assert shown.json["status"] == "completed"
        for process in (worker, participant):
            process.send_signal(signal.SIGTERM)
        assert [await exit_code_of(worker), await exit_code_of(participant)] == [0, 0]
