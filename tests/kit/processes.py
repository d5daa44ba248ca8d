"""What a test can know of a process that is not its child."""

import asyncio
import os
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id."""
    return Path(f"/proc/{pid}").exists()


def owner_of(pid: int) -> int:
    """The user id it runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


async def wait_for_exit(pid: int, *, seconds: float = 20.0) -> None:
    """Return when that process is gone; TimeoutError when it stays. Linux says so (pidfd_open)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
