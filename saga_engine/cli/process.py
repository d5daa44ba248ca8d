"""
How a process that serves ends: the first signal drains, the second exits, and time has a last word.

SIGTERM, SIGINT and SIGHUP (unless it was ignored, as `nohup` does) drain. The handlers are the
interpreter's and not the event loop's, so that the second signal works even when the user's code
keeps the loop busy. A process that has not drained when the time for it is over is ended by a
thread of its own; if not even that runs, because code in C holds the interpreter, by its overseer.
After it has drained, threads and executors that users left behind have LEAVING seconds to end.
"""

import asyncio
import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import saga_engine
from saga_engine.cli.overseer import LAST_SIGNAL
from saga_engine.cli.verdict import failed, verdict_of
from saga_engine.settings import Settings
from saga_engine.worker.alarm import NOTE_BYTES

LEAVING = 5.0
"""Seconds for what is left when everything is drained: threads, executors, functions at exit."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def until_told(
    run: Callable[[asyncio.Event], Awaitable[None]],
    *,
    drain: float | None = None,
    overdue: Callable[[], None] = lambda: None,
) -> None:
    """
    Run until *run* returns; the event it gets is set by the first signal.

    Args:
        drain: seconds after the first signal when the process ends with 128 and the signal's
            number, whatever it does; None: never.
        overdue: called in another thread before it ends so, to say it in the log.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = False

    def hear(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        if drain is not None:
            end_after(drain, 128 + number, overdue)
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [each for each in _SIGNALS if each != signal.SIGHUP or before[each] != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, hear)
    try:
        await run(stop)
    finally:
        if drain is not None:
            end_after(LEAVING, *_ending(sys.exc_info()[1]))
        for number in heard:
            signal.signal(number, before[number])


def _ending(error: BaseException | None) -> tuple[int, Callable[[], None]]:
    """Give the exit code after *error*, and what says why if the main thread no longer can."""
    if error is None:
        return 0, lambda: None
    ending = error

    def say() -> None:
        failed(ending)

    return verdict_of(ending)[1], say


def end_after(seconds: float, code: int, overdue: Callable[[], None] = lambda: None) -> None:
    """End the process that many seconds from now, from a thread that does not keep it alive."""

    def end() -> None:
        threading.Event().wait(seconds)
        with suppress(BaseException):
            overdue()
        os._exit(code)

    threading.Thread(target=end, name="saga-engine end", daemon=True).start()


@contextmanager
def overseen(settings: Settings) -> Iterator[mmap.mmap]:
    """
    Have an overseer beside this process until the block ends.

    Yields:
        The memory in which calls into the author's code are noted; see `worker.alarm`.
    """
    with (
        _shared(NOTE_BYTES) as descriptor,
        mmap.mmap(descriptor, NOTE_BYTES) as memory,
        _overseer(settings, descriptor) as pipe,
    ):
        before = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        _accept_last_signal()
        try:
            yield memory
        finally:
            signal.set_wakeup_fd(before)


@contextmanager
def _shared(size: int) -> Iterator[int]:
    """Open memory that another process can have too, by its descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("saga-engine")
    else:
        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _overseer(settings: Settings, memory: int) -> Iterator[int]:
    """Start it; the descriptor of the pipe that it reads, which never blocks."""
    root = str(Path(saga_engine.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "saga_engine.cli.overseer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        pass_fds=(memory,),
        start_new_session=True,
    )
    assert process.stdin is not None, "it was asked for"
    with process, process.stdin as stdin:
        url = settings.database_url
        told = {
            "memory": memory,
            "limit": settings.code_limit,
            "drain": settings.drain,
            "settings": {
                "database_url": url.get_secret_value() if url else None,
                "log_format": settings.log_format,
                "log_level": settings.log_level,
            },
        }
        stdin.write(json.dumps(told).encode() + b"\n")
        stdin.flush()
        os.set_blocking(stdin.fileno(), False)
        yield stdin.fileno()


def _accept_last_signal() -> None:
    """Let the overseer end this process where SIGKILL does not; see `overseer.LAST_SIGNAL`."""
    with suppress(AttributeError, OSError, ValueError):
        library = ctypes.CDLL(None)
        library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        library.signal(int(LAST_SIGNAL), ctypes.cast(library["_exit"], ctypes.c_void_p))
