"""A worker's or a participant's clock is an hour ahead or behind; the database's is the clock."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.faults.hearing import Hearing
from tests.faults.processes import lasting

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's libfaketime shifts what a process sees of the clock."""

LASTS = 5.0
AGREES = timedelta(minutes=10)  # Two looks at clocks are not further apart, whatever else goes on.


async def shift(members, hours, site, random):
    """The process lives on with a wrong clock, and then with a right one."""
    assert LIBRARY, "libfaketime is not installed. Run `apt-get install libfaketime`."
    member = random.choice(getattr(site, members))
    offset = f"{hours:+d}h"
    wrong = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
    hearing = Hearing([member])
    try:
        await member.program.kill(changes=wrong)
        await member.ready()
        off = hearing.times("process.ready")[-1] - await site.now()
        assert abs(off - timedelta(hours=hours)) < AGREES, f"its clock was {off} off"
        await lasting(LASTS)
    finally:
        await member.program.kill()
    over = await site.now()
    await member.ready()
    return over


FAULTS = (
    Fault(
        "a worker's clock 1 h ahead",
        partial(shift, "workers", 1),
        times=2,
        few=1,
        mixes=WORKERS,
    ),
    Fault("a worker's clock 1 h behind", partial(shift, "workers", -1), times=2, mixes=WORKERS),
    Fault(
        "a participant's clock 1 h ahead",
        partial(shift, "participants", 1),
        times=2,
        mixes=PARTICIPANTS,
    ),
    Fault(
        "a participant's clock 1 h behind",
        partial(shift, "participants", -1),
        times=2,
        mixes=PARTICIPANTS,
    ),
)
