"""
A selection of the fault suite, with a fresh seed each time: what CI runs of `make faults`.

Every promise, for every run under every one of these faults. The seed is printed; with FAULTS_SEED
it can be given.
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
ENOUGH = 300  # Runs: fewer would mean that the load did not come about.


@pytest.mark.rabbitmq
@pytest.mark.usefixtures("rabbitmq_is_installed")
@pytest.mark.timeout(600)
async def test_every_promise_holds_under_a_selection_of_the_faults(tmp_path, capsys):
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))

    def tell(text):
        with capsys.disabled():
            print(text, flush=True)  # noqa: T201 - the seed and the figures, on CI too

    tell(f"\nfault suite, seed {seed}: FAULTS_SEED={seed} does the same again")
    async with (
        fault_environment(tmp_path, seed) as place,
        LoadGenerator(place, Random(seed)) as load,
    ):
        suite = FaultSuite(place, load, Random(seed), tell)
        for fault in SELECTION:
            await suite.run_fault(fault, fault.ci_times)
        await suite.check_promises()
        await suite.recheck_all()
        printed = find_leaks(place)
    tell(format_table(suite))
    assert not suite.violations
    assert not printed
    assert len(load.requested) >= ENOUGH
    assert suite.times >= len(SELECTION)


@pytest.mark.parametrize("place", CRASH_POINTS)
def test_a_place_to_crash_at_is_a_call_of_the_engine(place):
    owner, name = resolve_target(CRASH_POINTS[place])
    assert callable(getattr(owner, name))


async def test_a_name_that_no_fault_has_is_told_and_is_no_success():
    program = (sys.executable, "-m", "tests.faults", "--only", "SIGKILL of nobody")
    process = await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"no fault is called 'SIGKILL of nobody'" in told


async def test_a_fault_that_does_not_come_about_is_told_and_ends_no_other():
    done = []

    async def is_done(_site, _random):
        await sleep(0)
        done.append(True)
        return AT

    def raising(error):
        async def fail(_site, _random):
            raise error

        return fail

    bug = ZeroDivisionError("a bug of the suite")
    failures = (AssertionError("no"), TimeoutError("late"), StoreUnavailable("away"), bug)
    ways = (raising(each) for each in failures)
    faults = [(Fault(str(number), way), Random(0)) for number, way in enumerate((*ways, is_done))]
    no_site: Any = None  # these faults look at none
    problems, over = await inject_all(no_site, faults)
    assert over == AT
    assert problems == [
        "AssertionError: no",
        "TimeoutError: late",
        "StoreUnavailable: away",
        "ZeroDivisionError: a bug of the suite",
    ]
    assert done
