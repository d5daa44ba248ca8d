"""
A server program as a child process: started without a shell, logged to a file.

Linux terminates the program when this process dies, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
That is tied to the thread that starts the program, so start it on an event loop whose thread
outlives it. The program is not restarted automatically.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Self

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_POLL_INTERVAL = 0.02  # Seconds between checks whether a server is ready.
_PORTS = range(10_000, 32_000)  # Linux gives connections ports from 32,768 on (ip(7)).
_port_numbers = count(os.getpid() * 100)  # Processes that start together try different ports.
_LOG_TAIL_CHARACTERS = 2_000  # Characters of the log in an error message.


@dataclass(frozen=True, slots=True)
class OsUser:
    """The user and group ids that a program runs with."""

    uid: int
    gid: int


class ServerProcess:
    """A server program; `start` starts one."""

    def __init__(self, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        environment: Mapping[str, str],
        run_as: OsUser | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Self:
        """Start `command` in `/` as `run_as` (by default the user of this process)."""
        user_options = (
            {"user": run_as.uid, "group": run_as.gid, "extra_groups": []} if run_as else {}
        )
        with log_path.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd="/",
                env=dict(environment),
                start_new_session=True,  # Ctrl-C in the terminal goes only to this process.
                preexec_fn=_terminate_with_parent(stop_signal),
                **user_options,  # type: ignore[arg-type]  # typeshed types each keyword separately
            )
        return cls(process, log_path)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the program is running, as far as the event loop knows."""
        return self._process.returncode is None

    def log_tail(self) -> str:
        """The end of the log, for an error message."""
        return self._log_path.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:].strip()

    def kill(self) -> None:
        """SIGKILL the program and its direct children, as a crash would."""
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            # Stopped first, so that it cannot start another child.
            os.kill(self.pid, signal.SIGSTOP)
            for child in _child_pids(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self, stop_signal: signal.Signals, timeout: float) -> None:  # noqa: ASYNC109 - the server's time to stop
        """Send the signal and wait `timeout` seconds; then kill the program."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(stop_signal)
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def wait(self) -> int:
        """Wait for the exit code; a negative one is the signal that ended the program."""
        return await self._process.wait()

    async def poll_while_running(self) -> AsyncIterator[None]:
        """Yield at an interval while the program runs, for checks whether it is ready."""
        while self.is_running:
            yield
            await asyncio.sleep(_POLL_INTERVAL)


def free_port() -> int:
    """
    A TCP port of 127.0.0.1 that is currently unused.

    The kernel gives it to no connection, so it is still free when the server starts, and when it
    starts again: a client that connects to a stopped server from the server's own port would be
    connected to itself.
    """
    for number in islice(_port_numbers, len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError(f"No port of 127.0.0.1 from {_PORTS[0]} to {_PORTS[-1]} is unused.")


def _terminate_with_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    parent_pid = os.getpid()

    def set_parent_death_signal() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent_pid:  # The parent died between fork and prctl.
            os._exit(1)

    return set_parent_death_signal


def _child_pids(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
