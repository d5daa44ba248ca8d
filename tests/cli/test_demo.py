"""`saga-engine demo`, as a newcomer runs it: no servers, no settings."""

import asyncio
import os
import sys

import pytest

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_ENGINE_")}


@pytest.mark.timeout(180)
async def test_the_demo_loses_nothing_and_doubles_nothing_whatever_it_breaks():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "saga_engine", "demo", env=CLEAN, stdout=-1, stderr=-1
    )
    out, err = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, out + err
    summary = dict(line.rsplit(None, 1) for line in out.splitlines() if line.startswith("  "))
    counts = {name.strip(): value for name, value in summary.items()}
    assert counts["completed"] == "22"
    assert counts["compensated"] == "8"
    assert (counts["incidents"], counts["dead letters"]) == ("0", "1")
    assert int(counts["duplicates dropped"]) >= 5
    assert (counts["effects lost"], counts["effects doubled"]) == ("0", "0")
    assert "was killed with SIGKILL in the middle of runs" in out
