"""A worker's or a participant's clock is an hour ahead or behind; the database's is the clock."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from tests.faults.event_log_watcher import EventLogWatcher
from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.kit.programs import sleep

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's libfaketime shifts what a process sees of the clock."""

FAULT_SECONDS = 5.0
CLOCK_TOLERANCE = timedelta(
    minutes=10
)  # Two looks at clocks are not further apart, whatever else goes on.


async def shift_clock(members, hours, environment, random):
    """The process lives on with a wrong clock, and then with a right one."""
    assert LIBRARY, "libfaketime is not installed. Run `apt-get install libfaketime`."
    member = random.choice(getattr(environment, members))
    offset = f"{hours:+d}h"
    wrong = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
    hearing = EventLogWatcher([member])
    try:
        await member.program.kill(changes=wrong)
        await member.ready()
        off = hearing.event_times("process.ready")[-1] - await environment.now()
        assert abs(off - timedelta(hours=hours)) < CLOCK_TOLERANCE, f"its clock was {off} off"
        await sleep(FAULT_SECONDS)
    finally:
        await member.program.kill()
    over = await environment.now()
    await member.ready()
    return over


FAULTS = (
    Fault(
        "a worker's clock 1 h ahead",
        partial(shift_clock, "workers", 1),
        times=2,
        ci_times=1,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "a worker's clock 1 h behind",
        partial(shift_clock, "workers", -1),
        times=2,
        exclusive_resources=WORKERS,
    ),
    Fault(
        "a participant's clock 1 h ahead",
        partial(shift_clock, "participants", 1),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
    Fault(
        "a participant's clock 1 h behind",
        partial(shift_clock, "participants", -1),
        times=2,
        exclusive_resources=PARTICIPANTS,
    ),
)
