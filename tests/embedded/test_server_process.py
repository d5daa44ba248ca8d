"""A server program that is started, logged, stopped and killed with its children."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from saga_engine.embedded.server_process import ServerProcess, free_port
from tests.kit.processes import wait_for_exit

RANGE_OF_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")
IGNORES_SIGTERM = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "3600"])
print(child.pid, flush=True)
signal.pause()
"""


async def started(log: Path, program: str) -> ServerProcess:
    return await ServerProcess.start(
        [sys.executable, "-c", program], log_path=log, environment=dict(os.environ)
    )


async def child_of(process: ServerProcess) -> int:
    """The process id that the program has printed."""
    async with asyncio.timeout(60):
        async for _ in process.poll_while_running():
            if process.log_tail():
                break
    return int(process.log_tail())


async def test_a_program_that_ends_is_not_running_and_has_a_log(tmp_path):
    process = await started(tmp_path / "log", "print('cannot bind'); raise SystemExit(3)")
    assert await process.wait() == 3
    assert not process.is_running
    assert process.log_tail() == "cannot bind"
    process.kill()
    await process.stop(signal.SIGTERM, 1)


async def test_a_program_that_ignores_the_signal_is_killed_with_its_children(tmp_path):
    process = await started(tmp_path / "log", IGNORES_SIGTERM)
    child = await child_of(process)
    assert process.is_running
    await process.stop(signal.SIGTERM, 0.1)
    assert await process.wait() == -signal.SIGKILL
    await wait_for_exit(child)


def test_a_free_port_is_given_once_and_to_no_connection():
    lowest_of_connections = int(RANGE_OF_CONNECTIONS.read_text().split()[0])
    with socket.socket() as first:
        first.bind(("127.0.0.1", free_port()))
        ports = {free_port() for _ in range(50)}
        assert len(ports) == 50
        assert first.getsockname()[1] not in ports
    assert max(ports) < lowest_of_connections
