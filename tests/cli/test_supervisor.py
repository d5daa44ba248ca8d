"""`--processes`: several processes under one supervisor, with one HTTP port for all of them."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from tests.kit.command_line import (
    executed_command,
    exit_code_of,
    read_log_until,
    running_command,
    saga_engine,
)
from tests.kit.http import get
from tests.kit.pid_namespace import first_process
from tests.kit.processes import child_pids, child_states, wait_for_exit
from tests.kit.programs import wait_until_true

SAGAS = """
import os
from saga_engine import Saga

shop = Saga("shop", version=1, input=dict)

@shop.step(command="shop.do", read_only=True)
def do(given: dict) -> dict:
    print("mapped", os.getpid(), flush=True)
    return given
"""

SERVICES = """
import asyncio, os
from pathlib import Path
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    print("handled", os.getpid(), flush=True)
    while "wait_for" in command and not Path(command["wait_for"]).exists():
        await asyncio.sleep(0.05)
"""


@asynccontextmanager
async def supervised(program, folder, urls, wrapper=(), **settings):
    """Run a command with several processes; yield it when all are ready, with its port."""
    (folder / "sagas.py").write_text(SAGAS)
    (folder / "services.py").write_text(SERVICES)
    module = {"worker": "sagas", "participant": "services"}[program]
    command = (program, module, "--processes", "2", "--port", "0")
    settings = {"http_cache_ttl": "0.001", **urls, **settings}
    async with executed_command(*command, cwd=folder, wrapper=wrapper, **settings) as supervisor:
        supervisor.port = await listening_port(supervisor)
        await wait_until_ready(supervisor.port)
        yield supervisor


async def listening_port(supervisor):
    line = await read_log_until(supervisor, "http.listening")
    return int(line["event"].rpartition(":")[2])


async def read_sentence(process):
    """Read the log up to a line of `saga-engine:`, which is not JSON, and return it."""
    async with asyncio.timeout(60):
        while not (line := await process.stderr.readline()).startswith(b"saga-engine:"):
            assert line, "it ended"
    return line.decode()


async def wait_until_ready(port):
    async def is_ready():
        return (await get(port, "/readyz"))[0] == 200

    await wait_until_true(is_ready)


async def problems(port, path="/readyz"):
    """What the port reports as wrong."""
    _, _, body = await get(port, path)
    return json.loads(body).get("problems", {})


async def metric(port, name, **labels):
    """The value of a series on the port."""
    _, _, body = await get(port, "/metrics")
    samples = [each for family in families(body.decode()) for each in family.samples]
    (value,) = [each.value for each in samples if (each.name, each.labels) == (name, labels)]
    return value


async def start_run(urls, **given):
    started = await saga_engine("start", "shop", "--input", json.dumps(given), **urls)
    assert started.exit_code == 0, started


async def start_runs_until_each_printed(process, urls, **given):
    """Start runs until the user's code in each process has printed a line; return their number."""
    printed: set[int] = set()
    runs = 0
    async with asyncio.timeout(60):
        while printed != set(child_pids(process.pid)):
            await start_run(urls, **given)
            runs += 1
            printed.add(int((await process.stdout.readline()).split()[1]))
    return runs


async def test_all_processes_work_and_the_port_counts_the_work_of_all(tmp_path, urls):
    async with (
        supervised("worker", tmp_path, urls) as worker,
        supervised("participant", tmp_path, urls) as participant,
    ):
        runs = await start_runs_until_each_printed(worker, urls)
        runs += await start_runs_until_each_printed(participant, urls)
        completed = {"saga": "shop", "outcome": "completed"}

        async def all_are_counted():
            return await metric(worker.port, "saga_runs_finished_total", **completed) == runs

        await wait_until_true(all_are_counted)
        handled = {"command": "shop.do", "outcome": "succeeded"}
        name = "saga_handler_duration_seconds_count"
        assert await metric(participant.port, name, **handled) == runs
        assert await metric(worker.port, "saga_process_ready") == 1
        worker.send_signal(signal.SIGINT)
        participant.send_signal(signal.SIGTERM)
        assert [await exit_code_of(worker), await exit_code_of(participant)] == [0, 0]


async def test_a_killed_process_is_named_and_comes_back_and_no_counter_decreases(tmp_path, urls):
    async with supervised("participant", tmp_path, urls, process_restart_backoff="2") as supervisor:
        port = supervisor.port
        consumed = await metric(port, "process_cpu_seconds_total")
        killed, other = child_pids(supervisor.pid)
        os.kill(killed, signal.SIGKILL)
        lost = await read_log_until(supervisor, "process.lost")
        assert (lost["level"], lost["problem"]) == ("warning", "it was ended by SIGKILL")
        assert 1 <= lost["delay_s"] <= 2
        assert await problems(port) == {f"process {lost['process']}": "it was ended by SIGKILL"}
        assert (await get(port, "/livez"))[0] == 200
        assert await metric(port, "saga_process_ready") == 0
        assert await metric(port, "process_cpu_seconds_total") >= consumed
        started = await read_log_until(supervisor, "process.started")
        assert started["process"] == lost["process"]
        await wait_until_ready(port)
        assert set(child_pids(supervisor.pid)) == {started["pid"], other}
        assert await metric(port, "process_cpu_seconds_total") >= consumed
        assert await metric(port, "saga_processes_lost_total") == 1


@pytest.mark.parametrize("signaled", ["the supervisor", "all processes"])
async def test_sigterm_lets_every_process_finish_its_work(tmp_path, urls, signaled):
    """systemd sends SIGTERM to all processes of a service, so each gets it twice."""
    done = tmp_path / "done"
    async with (
        supervised("participant", tmp_path, urls) as participant,
        running_command("worker", "sagas", "--port", "0", cwd=tmp_path, **urls),
    ):
        await start_runs_until_each_printed(participant, urls, wait_for=str(done))
        signaled_pids = [] if signaled == "the supervisor" else child_pids(participant.pid)
        for pid in (*signaled_pids, participant.pid):
            os.kill(pid, signal.SIGTERM)
        for _ in range(2):
            await read_log_until(participant, "process.stopping")
        assert set(await problems(participant.port)) == {
            "process 1, shutting_down",
            "process 2, shutting_down",
        }
        done.touch()
        stopped = [await read_log_until(participant, "process.stopped") for _ in range(2)]
        assert [line["clean"] for line in stopped] == [True, True]
        assert {line["process"] for line in stopped} == {1, 2}
        assert await exit_code_of(participant) == 0


async def test_the_second_signal_ends_all_processes_at_once(tmp_path, urls):
    async with (
        supervised("participant", tmp_path, urls) as participant,
        running_command("worker", "sagas", "--port", "0", cwd=tmp_path, **urls),
    ):
        children = child_pids(participant.pid)
        await start_runs_until_each_printed(participant, urls, wait_for="nothing")
        participant.send_signal(signal.SIGTERM)
        for _ in range(2):
            await read_log_until(participant, "process.stopping")
        participant.send_signal(signal.SIGINT)
        assert await exit_code_of(participant, 5) == 128 + signal.SIGINT
        for pid in children:
            await wait_for_exit(pid)


async def test_processes_stop_when_their_supervisor_is_killed(tmp_path, urls):
    async with supervised("participant", tmp_path, urls) as supervisor:
        children = child_pids(supervisor.pid)
        supervisor.kill()
        for _ in children:
            assert (await read_log_until(supervisor, "process.stopped"))["clean"] is True
        for pid in children:
            await wait_for_exit(pid)


@pytest.mark.parametrize("program", ["worker", "participant"])
@pytest.mark.parametrize("number", ["0", "-1", "257", "two"])
async def test_a_number_of_processes_that_cannot_be_is_a_usage_error(program, number):
    ran = await saga_engine(program, "services", "--processes", number)
    assert (ran.exit_code, f"saga-engine {program} --help" in ran.err) == (2, True)


async def test_a_configuration_error_is_printed_once_and_ends_all(tmp_path, urls):
    command = ("worker", "nowhere", "--processes", "3", "--port", "0")
    async with executed_command(*command, cwd=tmp_path, **urls) as supervisor:
        _, err = await supervisor.communicate()
    assert supervisor.returncode == 2
    assert err.count(b"There is no module 'nowhere'") == 1
    assert b"process.lost" not in err


async def test_a_later_configuration_error_does_not_end_the_other_processes(tmp_path, urls):
    async with supervised("participant", tmp_path, urls) as supervisor:
        module = tmp_path / "services.py"
        module.write_text("import nowhere")
        killed, other = child_pids(supervisor.pid)
        os.kill(killed, signal.SIGKILL)
        assert "services.py" in await read_sentence(supervisor)
        lost = await read_log_until(supervisor, "process.lost")
        assert lost["problem"] == "it exited with code 2"
        assert other in child_pids(supervisor.pid)
        module.write_text(SERVICES)
        await wait_until_ready(supervisor.port)


async def test_the_start_is_repeated_with_growing_delays_until_the_broker_is_there(tmp_path):
    (tmp_path / "services.py").write_text(SERVICES)
    command = ("participant", "services", "--processes", "2", "--port", "0")
    settings = {"broker_url": "amqp://127.0.0.1:1/", "process_restart_backoff": "0.001"}
    async with executed_command(*command, cwd=tmp_path, **settings) as supervisor:
        port = await listening_port(supervisor)
        delays = []
        for _ in range(3):
            sentence = await read_sentence(supervisor)
            assert "out of reach" in sentence
            lost = await read_log_until(supervisor, "process.lost")
            assert (lost["process"], lost["problem"]) == (1, "it exited with code 5")
            delays.append(lost["delay_s"])
        assert delays == sorted(delays)
        assert (await problems(port))["process 2"] == "it waits until process 1 has started"
        supervisor.send_signal(signal.SIGTERM)
        assert await exit_code_of(supervisor) in (0, 128 + signal.SIGTERM)


async def test_process_1_of_a_container_reaps_what_a_killed_process_leaves(tmp_path, urls):
    """The watchdog of the killed process becomes a child of process 1."""
    with first_process() as wrapper:
        async with supervised("participant", tmp_path, urls, wrapper=wrapper) as unshare:
            (first,) = child_pids(unshare.pid)
            killed, _ = child_pids(first)
            (watchdog,) = child_pids(killed)
            os.kill(killed, signal.SIGKILL)
            await wait_for_exit(watchdog)

            async def is_reaped():
                return "Z" not in child_states(first).values()

            await wait_until_true(is_reaped)
            await read_log_until(unshare, "process.lost")
            await wait_until_ready(unshare.port)
            os.kill(first, signal.SIGTERM)
            assert await exit_code_of(unshare) == 0


@pytest.mark.long
async def test_a_suspended_process_is_not_live_and_is_killed_after_the_shutdown(tmp_path, urls):
    async with supervised("participant", tmp_path, urls, shutdown_timeout="0.5") as supervisor:
        suspended, _ = child_pids(supervisor.pid)
        os.kill(suspended, signal.SIGSTOP)
        for path in ("/livez", "/readyz"):
            (problem,) = (await problems(supervisor.port, path)).items()
            assert problem == ("process 1", "it has not answered within 2.5 s")
        supervisor.send_signal(signal.SIGTERM)
        assert await exit_code_of(supervisor) == 128 + signal.SIGKILL
