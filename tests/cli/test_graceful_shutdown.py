"""A signal shuts a process down, and a second one exits at once."""

import asyncio
import signal
import sys
from contextlib import suppress

import pytest

from tests.kit.command_line import (
    environment,
    executed_command,
    exit_code_of,
    read_log_until,
    saga_engine,
)

SLOW_SERVICES = """
import asyncio
from saga_engine import Participant

slow = Participant("slow")

@slow.command("slow.do")
async def do(command: dict) -> None:
    print("started", flush=True)
    await asyncio.sleep(60)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
async def test_the_first_signal_shuts_down_and_the_second_exits_at_once(tmp_path, urls, number):
    (tmp_path / "slow.py").write_text(SLOW_SERVICES)
    (tmp_path / "sagas.py").write_text(SAGA)
    async with (
        executed_command("worker", "sagas", "--port", "0", cwd=tmp_path, **urls) as worker,
        executed_command("participant", "slow", "--port", "0", cwd=tmp_path, **urls) as participant,
    ):
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        assert (await saga_engine("start", "slow", "--input", "{}", **urls)).exit_code == 0
        assert await participant.stdout.readline() == b"started\n"
        participant.send_signal(number)
        await read_log_until(participant, "process.stopping")
        participant.send_signal(number)
        assert await exit_code_of(participant, 5) == 128 + number
        worker.send_signal(number)
        assert await exit_code_of(worker) == 0


SAGA = """
from saga_engine import Saga

slow = Saga("slow", version=1, input=dict)

@slow.step(command="slow.do", read_only=True)
def do(given: dict) -> dict:
    return given
"""


BUSY = """
import asyncio, time
from saga_engine.cli.graceful_shutdown import run_until_signaled

async def run(stop):
    print("started", flush=True)
    while True:
        time.sleep(0.01)

asyncio.run(run_until_signaled(run))
"""


async def test_the_second_signal_exits_although_the_loop_is_blocked():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BUSY), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    async with asyncio.timeout(30):
        while process.returncode is None:  # two signals in quick succession count as one
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await process.wait()
    assert process.returncode == 143
