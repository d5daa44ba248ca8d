"""The watchdog kills a process in time, counted in ticks; it may be lost, and is restarted."""

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from saga_engine.call_time_limit import CALL_NOTE_BYTES, SignalTimeLimit
from saga_engine.cli.watchdog import LOG_TIMEOUT, POLL_INTERVAL, RECORD_TIMEOUT, Watchdog
from saga_engine.identifiers import uuid7
from saga_engine.payload.guard import UserCodeCall
from saga_engine.shutdown import ShutdownSchedule

CALL = UserCodeCall("shop", str(uuid7()), "do", None, "shop.do", "do", "sagas.py:1")


class WatchdogHarness:
    """A child process, and a watchdog whose ticks the test makes."""

    def __init__(self, *, in_call, database_url=None, limit=100_000.0, shutdown_timeout=25.0):
        self.child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.memory = mmap.mmap(-1, CALL_NOTE_BYTES)
        self.time_limit = SignalTimeLimit(1.0, self.memory)
        if in_call:
            self.time_limit.enter(CALL)
        settings = {"database_url": database_url, "log_format": "json", "log_level": "info"}
        config = {
            "code_limit": limit,
            "shutdown_timeout": shutdown_timeout,
            "shutdown_elapsed": None,
            "process": None,
            "signal_fd": os.open(os.devnull, os.O_RDONLY),
            "settings": settings,
        }
        self.watchdog = Watchdog(config, self.child.pid, self.memory)
        self.seconds = 0.0

    def tick_until_kill(self, most):
        """Tick until the watchdog kills its parent; return the seconds that it counted."""
        while self.seconds < most:
            self.seconds += POLL_INTERVAL
            try:
                self.watchdog.tick(POLL_INTERVAL)
            except SystemExit:
                return self.seconds
        raise AssertionError("it has not killed its parent")


@contextmanager
def watchdog_harness(**options):
    harness = WatchdogHarness(**options)
    try:
        yield harness
    finally:
        if harness.time_limit.call is not None:
            harness.time_limit.leave()
        harness.child.kill()
        harness.child.communicate()


@pytest.fixture
def silent_database():
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql+asyncpg://user@127.0.0.1:{server.getsockname()[1]}/none"


@pytest.mark.parametrize("timeout", [0.5, 2.0, 25.0, 3_600.0])
@pytest.mark.parametrize("in_call", [True, False])
def test_the_watchdog_keeps_the_shutdown_timeout(silent_database, timeout, in_call):
    with watchdog_harness(
        in_call=in_call, database_url=silent_database, shutdown_timeout=timeout
    ) as harness:
        harness.watchdog.on_signals(bytes([signal.SIGTERM]))
        seconds = harness.tick_until_kill(timeout + 10)
        assert seconds <= timeout + POLL_INTERVAL
        if in_call:
            assert seconds >= ShutdownSchedule(timeout).work_deadline, (
                "it does not shorten the time of the work"
            )
        assert harness.child.wait() == -signal.SIGKILL


def test_the_fallback_line_names_the_call_without_imports(capfd):
    with watchdog_harness(in_call=True, limit=1.0) as harness:
        while not harness.watchdog._stuck_call:
            harness.watchdog.tick(POLL_INTERVAL)
        harness.watchdog._stuck_call.write_fallback_line()
        (line,) = [json.loads(each) for each in capfd.readouterr().err.splitlines()]
        names = {name: line[name] for name in ("saga", "run_id", "step", "command", "function")}
        assert line["event"] == "user_code.hung"
        assert names == {name: getattr(CALL, name) for name in names}


def test_a_silent_database_delays_the_kill_by_its_timeout_only(silent_database):
    with watchdog_harness(in_call=True, database_url=silent_database, limit=3.0) as harness:
        assert harness.tick_until_kill(100) <= 3 + RECORD_TIMEOUT + LOG_TIMEOUT + 3 * POLL_INTERVAL


def test_a_shutdown_during_a_report_still_ends_in_time(silent_database):
    with watchdog_harness(
        in_call=True, database_url=silent_database, limit=1.0, shutdown_timeout=2.0
    ) as harness:
        while not harness.watchdog._stuck_call:
            harness.watchdog.tick(POLL_INTERVAL)
        harness.watchdog.on_signals(bytes([signal.SIGTERM]))
        assert harness.tick_until_kill(100) <= 2.0 + POLL_INTERVAL


def test_a_call_that_returns_during_its_report_is_not_killed(silent_database):
    with watchdog_harness(in_call=True, database_url=silent_database, limit=1.0) as harness:
        while not harness.watchdog._stuck_call:
            harness.watchdog.tick(POLL_INTERVAL)
        harness.time_limit.leave()
        for _ in range(100):
            harness.watchdog.tick(POLL_INTERVAL)
        assert harness.child.poll() is None
