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
from tests.faults.crashing import PLACES, resolved
from tests.faults.fault import Fault
from tests.faults.load import Load
from tests.faults.processes import ROOT, lasting
from tests.faults.site import site
from tests.faults.suite import Suite, inject, leaks, table

SELECTION = [fault for fault in ALL if fault.few]
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
    async with site(tmp_path, seed) as place, Load(place, Random(seed)) as load:
        suite = Suite(place, load, Random(seed), tell)
        for fault in SELECTION:
            await suite.endure(fault, fault.few)
        await suite.conclude()
        await suite.look_back()
        printed = leaks(place)
    tell(table(suite))
    assert not suite.violations
    assert not printed
    assert len(load.asked) >= ENOUGH
    assert suite.times >= len(SELECTION)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_to_crash_at_is_a_call_of_the_engine(place):
    owner, name = resolved(PLACES[place])
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
        await lasting(0)
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
    problems, over = await inject(no_site, faults)
    assert over == AT
    assert problems == [
        "AssertionError: no",
        "TimeoutError: late",
        "StoreUnavailable: away",
        "ZeroDivisionError: a bug of the suite",
    ]
    assert done
