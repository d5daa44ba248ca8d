"""`saga-engine demo` without servers and settings."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.processes import child_pids, wait_for_exit

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_ENGINE_")}
INTERRUPTED = "Interrupted. Everything that the demo had started is stopped."


@pytest.mark.timeout(180)
async def test_the_demo_loses_and_duplicates_no_effect():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "saga_engine", "demo", env=CLEAN, stdout=-1, stderr=-1
    )
    out, err = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, out + err
    report = out.partition("\nNext:")[0]
    summary = dict(line.rsplit(None, 1) for line in report.splitlines() if line.startswith("  "))
    counts = {name.strip(): value for name, value in summary.items()}
    assert counts["completed"] == "22"
    assert counts["compensated"] == "8"
    assert (counts["incidents"], counts["dead letters"]) == ("0", "1")
    assert int(counts["duplicates dropped"]) >= 5
    assert (counts["effects lost"], counts["effects duplicated"]) == ("0", "0")
    assert "with SIGKILL while runs are in flight" in out


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that an unprivileged user may enter; PostgreSQL runs as one if we are root."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        pytest.param(signal.SIGINT, 130, INTERRUPTED, marks=pytest.mark.long),
        (signal.SIGTERM, 143, INTERRUPTED),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, "", marks=pytest.mark.long),
    ],
    ids=("SIGINT", "SIGTERM", "SIGKILL"),
)
async def test_a_signal_stops_everything_that_the_demo_started(directory, number, code, message):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saga_engine", "demo"),
        env={**CLEAN, "TMPDIR": str(directory)},
        stdout=-1,
        stderr=-1,
        # Tests in the background of a shell ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if b"placing 30 orders" in line:
            break
    children = child_pids(process.pid)
    assert len(children) == 3, "PostgreSQL, the participants and a worker"
    process.send_signal(number)
    _, err = await process.communicate()
    assert (process.returncode, err.decode().strip()) == (code, message)
    for child in children:
        await wait_for_exit(child)
    assert (number is signal.SIGKILL) or not list(directory.iterdir())
