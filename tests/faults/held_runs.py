"""
`saga-engine`, for a worker that records which runs it holds in memory, at each commit.

    python -m tests.faults.held_runs worker tests.faults.workload:order_saga

Each process appends to a file of its own: a line for each run of a batch, with the revision and a
digest of the run that it holds after the commit. All lines of a batch are one write, so that
SIGKILL loses no more than the last ones. `PromiseChecker` compares the last line of each run and
process with the journal (P5).
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import orjson

from saga_engine.decider.run import Run
from saga_engine.store.batch_append import AppendResult
from saga_engine.store.journal import StoredEvent
from saga_engine.store.runs import StoredRun
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.transaction_runner import TransactionRunner
from tests.kit.held_runs import fold

PATH_VARIABLE = "FAULTS_HELD_RUNS"
"""The environment variable with the first part of the path of the file."""

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def digest_of(run: Run) -> str:
    """Equal for equal runs of the workload: jsonb changes the order of keys, and nothing else."""
    return hashlib.blake2b(orjson.dumps(run, option=_OPTIONS), digest_size=12).hexdigest()


def record_held_runs(path: str) -> None:
    """Make the workers of this process record which runs they hold after each commit."""
    remember = TransactionRunner._remember
    name = f"{path}-{os.getpid()}-{uuid4().hex[:8]}"
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def remember_and_record(
        self: TransactionRunner, changes: ChangeSet, result: AppendResult | None, epoch: int | None
    ) -> None:
        remember(self, changes, result, epoch)
        lost = () if result is None else result.lost
        cached = self._cache._runs  # `find` would count as a use of the runs
        held = [
            cached.get(run_id, stored)  # a finished run is not kept
            for run_id, stored in changes.runs.items()
            if run_id not in lost
        ]
        if held:
            os.write(file, "".join(map(_line, held)).encode())

    TransactionRunner._remember = remember_and_record  # type: ignore[method-assign]


def _line(held: StoredRun) -> str:
    return f"{held.run.run_id} {held.revision} {digest_of(held.run)}\n"


class HeldRunReader:
    """Reads what the processes have recorded; *directory* has no other files."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._last: dict[str, dict[str, tuple[int, str]]] = {}

    def read(self) -> None:
        """Read the lines since the last call."""
        for path in sorted(self._directory.iterdir()):
            for run_id, revision, digest in self._new_lines(path):
                self._last.setdefault(run_id, {})[path.name] = (int(revision), digest)

    def _new_lines(self, path: Path) -> Iterator[list[str]]:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            lines = file.read().rpartition(b"\n")[0]  # the last one is being written, or was cut
        if lines:
            self._offsets[path] = self._offsets.get(path, 0) + len(lines) + 1
            yield from (line.split() for line in lines.decode().split("\n"))

    def problems(
        self, run_id: str, journal: Sequence[StoredEvent], revisions: Collection[int]
    ) -> list[str]:
        """
        What is wrong with what each process held after its last commit of a run.

        Args:
            journal: the events of the run, in order.
            revisions: of the rows of its journal.
        """
        held = self._last.get(run_id, {})
        found = [] if held else [f"P5: no worker has recorded that it held {run_id}"]
        for process, (revision, digest) in held.items():
            folded = fold(journal, revision) if revision in revisions else None
            if folded is None or digest_of(folded) != digest:
                found.append(
                    f"P5: {process} held revision {revision} of {run_id} otherwise than its journal"
                    f" says, which has {len(revisions)} rows"
                )
        return found


if __name__ == "__main__":
    from saga_engine.cli.main import main

    record_held_runs(os.environ[PATH_VARIABLE])
    main()
