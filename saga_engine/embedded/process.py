"""
One server program as our child: started without a shell, logged to a file, never left behind.

The rule: Linux ends it when we die, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG). That is tied to
the thread that starts it, so start servers on an event loop whose thread outlives them.
Restarting is the caller's decision.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_POLL = 0.02  # Seconds between looks at a server that has no other way to say it is ready.
_TAIL = 2_000  # Characters of the log that an error shows.


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group ids a program runs as."""

    uid: int
    gid: int


class ServerProcess:
    """A running server program; `start` makes one."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        account: Account | None = None,
        parting: signal.Signals = signal.SIGTERM,
    ) -> Self:
        """Start `command` in `/`, as `account` (default: as ourselves); `parting` is its end."""
        identity = (
            {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        )
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd="/",
                env=dict(environment),
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop it in order.
                preexec_fn=_die_with_parent(parting),
                **identity,  # type: ignore[arg-type]  # typeshed types each keyword apart
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as the event loop knows."""
        return self._process.returncode is None

    def tail(self) -> str:
        """The end of its log, for an error's text."""
        return self._log.read_text(errors="replace")[-_TAIL:].strip()

    def kill(self) -> None:
        """End it and its direct children at once, as a power cut would."""
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            # Stopped first, so that it cannot start a child we have not seen.
            os.kill(self.pid, signal.SIGSTOP)
            for child in _children(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self, parting: signal.Signals, timeout: float) -> None:  # noqa: ASYNC109 - a server's grace, not ours
        """Ask it to end and wait `timeout` seconds; then end it."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(parting)
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def wait(self) -> int:
        """Wait for its end; return its exit code (negative: the signal that ended it)."""
        return await self._process.wait()

    async def looks(self) -> AsyncIterator[None]:
        """Yield now and then for as long as it runs: the pace at which to look for readiness."""
        while self.running:
            yield
            await asyncio.sleep(_POLL)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent(parting: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def arm() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, parting)
        if os.getppid() != parent:  # It died between fork and prctl.
            os._exit(1)

    return arm


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
