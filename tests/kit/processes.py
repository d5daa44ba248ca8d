"""Functions for processes that are not children of the test."""

import asyncio
import os
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    return Path(f"/proc/{pid}").exists()


def owner_of(pid: int) -> int:
    """The user id of the process."""
    return Path(f"/proc/{pid}").stat().st_uid


def child_pids(pid: int) -> list[int]:
    """The process ids of the children of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child_states(pid: int) -> dict[int, str]:
    """The process ids of the children of a process, with their states: Z is a zombie."""
    return {
        each: Path(f"/proc/{each}/stat").read_text().split(")")[1].split()[0]
        for each in child_pids(pid)
    }


async def wait_for_exit(pid: int, *, seconds: float = 20.0) -> None:
    """Wait until the process has ended (pidfd_open, Linux); TimeoutError if it has not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
