"""
A selection of the fault suite that CI runs, with a new seed each time.

It checks every promise for every run under each of these faults. The seed is printed; FAULTS_SEED
sets it.
"""

import asyncio
import os
import secrets
import sys
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from saga_engine.errors import StoreUnavailable
from tests.faults.catalogue import ALL
from tests.faults.crash_points import CRASH_POINTS, resolve_target
from tests.faults.environment import fault_environment
from tests.faults.fault import Fault
from tests.faults.load_generator import LoadGenerator
from tests.faults.suite import FaultSuite, find_leaks, format_table, inject_all
from tests.kit.programs import ROOT, sleep

SELECTION = [fault for fault in ALL if fault.ci_times]
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
MIN_RUNS = 300  # Fewer would mean that the load generator did not work.


@pytest.mark.rabbitmq
@pytest.mark.usefixtures("rabbitmq_is_installed")
@pytest.mark.timeout(600)
async def test_every_promise_holds_under_selected_faults(tmp_path, capsys):
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))

    def print_line(text):
        with capsys.disabled():
            print(text, flush=True)  # noqa: T201 - the seed and the figures, on CI too

    print_line(f"\nfault suite, seed {seed}: FAULTS_SEED={seed} does the same again")
    async with (
        fault_environment(tmp_path, seed) as environment,
        LoadGenerator(environment, Random(seed)) as load,
    ):
        suite = FaultSuite(environment, load, Random(seed), print_line)
        for fault in SELECTION:
            await suite.run_fault(fault, fault.ci_times)
        await suite.check_promises()
        await suite.recheck_all()
        leaks = find_leaks(environment)
    print_line(format_table(suite))
    assert not suite.violations
    assert not leaks
    assert len(load.requested) >= MIN_RUNS
    assert suite.times >= len(SELECTION)


@pytest.mark.parametrize("crash_point", CRASH_POINTS)
def test_a_crash_point_is_a_function_of_the_engine(crash_point):
    owner, name = resolve_target(CRASH_POINTS[crash_point])
    assert callable(getattr(owner, name))


async def test_an_unknown_fault_name_is_an_error():
    program = (sys.executable, "-m", "tests.faults", "--only", "SIGKILL of the moon")
    process = await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, output = await process.communicate()
    assert process.returncode == 2
    assert b"no fault has the name 'SIGKILL of the moon'" in output


async def test_a_failing_fault_is_reported_and_cancels_no_other():
    done = []

    async def is_done(_site, _random: Random):
        await sleep(0)
        done.append(True)
        return AT

    def raising(error):
        async def fail(_site, _random: Random):
            raise error

        return fail

    bug = ZeroDivisionError("a bug of the suite")
    failures = (AssertionError("no"), TimeoutError("late"), StoreUnavailable("unavailable"), bug)
    injections = (raising(each) for each in failures)
    faults = [
        (Fault(str(number), inject), Random(0))
        for number, inject in enumerate((*injections, is_done))
    ]
    no_environment: Any = None  # these faults do not use it
    problems, end = await inject_all(no_environment, faults)
    assert end == AT
    assert problems == [
        "AssertionError: no",
        "TimeoutError: late",
        "StoreUnavailable: unavailable",
        "ZeroDivisionError: a bug of the suite",
    ]
    assert done
