"""What a test can know of a process that is not its child."""

import asyncio
import os


async def ended(pid: int, *, patience: float = 20.0) -> None:
    """Return when that process is gone; TimeoutError when it stays. Linux says so (pidfd_open)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(patience):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
