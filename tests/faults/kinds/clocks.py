"""A worker's or a participant's clock is an hour ahead or behind; the database's is the clock."""

from functools import partial
from pathlib import Path

from tests.faults.fault import PARTICIPANTS, WORKERS, Fault
from tests.faults.processes import lasting

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's libfaketime shifts what a process sees of the clock."""

LASTS = 5.0


async def shift(members, offset, site, random):
    """The process lives on with a wrong clock, and then with a right one."""
    assert LIBRARY, "libfaketime is not installed. Run `apt-get install libfaketime`."
    member = random.choice(getattr(site, members))
    wrong = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
    await member.program.kill(changes=wrong)
    await member.ready()
    await lasting(LASTS)
    await member.program.kill()
    await member.ready()


FAULTS = (
    Fault(
        "a worker's clock 1 h ahead",
        partial(shift, "workers", "+1h"),
        times=2,
        few=1,
        mixes=WORKERS,
    ),
    Fault("a worker's clock 1 h behind", partial(shift, "workers", "-1h"), times=2, mixes=WORKERS),
    Fault(
        "a participant's clock 1 h ahead",
        partial(shift, "participants", "+1h"),
        times=2,
        mixes=PARTICIPANTS,
    ),
    Fault(
        "a participant's clock 1 h behind",
        partial(shift, "participants", "-1h"),
        times=2,
        mixes=PARTICIPANTS,
    ),
)
