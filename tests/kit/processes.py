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
