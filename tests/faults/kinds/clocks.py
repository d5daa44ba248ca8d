"""The clock of a process is an hour off; only the database's clock counts."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.environment import FaultEnvironment
from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import PARTICIPANTS, PROJECTORS, WORKERS, Fault
from tests.kit.programs import sleep

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's libfaketime changes the clock that a process sees."""

FAULT_SECONDS = 5.0
CLOCK_TOLERANCE = timedelta(minutes=10)  # Maximum time between two readings of the clocks.


async def skew_clock(members, hours, environment: FaultEnvironment, random: Random):
    """Restart a process with a wrong clock, and later with the right one."""
    assert LIBRARY, "libfaketime is not installed. Run `apt-get install libfaketime`."
    member = random.choice(getattr(environment, members))
    offset = f"{hours:+d}h"
    wrong = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
    hearing = EventLogWatcher([member])
    try:
        await member.program.kill(changes=wrong)
        await member.wait_until_ready()
        off = hearing.event_times("process.ready")[-1] - await environment.database_now()
        assert abs(off - timedelta(hours=hours)) < CLOCK_TOLERANCE, f"its clock was off by {off}"
        await sleep(FAULT_SECONDS)
    finally:
        await member.program.kill()
    over = await environment.database_now()
    await member.wait_until_ready()
    return over


FAULTS = (
    Fault(
        "a worker's clock 1 h ahead",
        partial(skew_clock, "workers", 1),
        times=2,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "a worker's clock 1 h behind",
        partial(skew_clock, "workers", -1),
        times=2,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "a participant's clock 1 h ahead",
        partial(skew_clock, "participants", 1),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "a participant's clock 1 h behind",
        partial(skew_clock, "participants", -1),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "a projector's clock 1 h ahead",
        partial(skew_clock, "projectors", 1),
        times=1,
        exclusive_resources=PROJECTORS,
    ),
    Fault(
        "a projector's clock 1 h behind",
        partial(skew_clock, "projectors", -1),
        times=1,
        exclusive_resources=PROJECTORS,
    ),
)
