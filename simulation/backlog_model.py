"""The counts of what is unfinished, open or pending in the model."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from saga_engine.store.backlog_counts import BacklogCounts
from saga_engine.vocabulary import IncidentCause, Status
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction
from simulation.rows import UNFINISHED, Row, oldest_age

Group = TypeVar("Group", bound=Hashable)


class BacklogModel(MemoryTransaction):
    """The counts of `RecordStatements` in memory."""

    async def count_backlog(self, count_limit: int) -> BacklogCounts:
        async with self.statement():
            dead_letters = _count(self._dead_letter_groups(), count_limit)
        async with self.statement():
            starts_waiting = _count((row["saga"] for row in self._starts()), count_limit)
        async with self.statement():
            starts_stranded = _count(self._stranded_sagas(), count_limit)
        async with self.statement():
            commands = [row for _, row in self.scan("outbox")]
        async with self.statement():
            requests = [row for _, row in self.scan("pending_request")]
        async with self.statement():
            unfinished = [row for _, row in self.scan("run") if row["status"] in UNFINISHED]
            runs = _count(
                ((self._saga_of(row), Status(row["status"])) for row in unfinished), count_limit
            )
            oldest_run_age = self._oldest_age_by_saga(unfinished)
        async with self.statement():
            runs_unpartitioned = 0
        async with self.statement():
            open_incidents = _count(self._incident_groups(), count_limit)
        async with self.statement():
            timers = [row["wake_at"] for _, row in self.scan("run") if row["wake_at"] is not None]
        return BacklogCounts(
            runs=runs,
            oldest_run_age=oldest_run_age,
            open_incidents=open_incidents,
            dead_letters=dead_letters,
            starts_waiting=starts_waiting,
            starts_stranded=starts_stranded,
            outbox_pending=min(len(commands), count_limit),
            outbox_oldest_age=oldest_age(self.now, [row["created_at"] for row in commands]),
            timers_pending=min(len(timers), count_limit),
            timer_overdue=max(0.0, oldest_age(self.now, timers)),
            pending_requests=min(len(requests), count_limit),
            pending_requests_oldest_age=oldest_age(
                self.now, [row["received_at"] for row in requests]
            ),
            awaiting_definition=min(sum(map(_awaits_definition, requests)), count_limit),
            runs_unpartitioned=runs_unpartitioned,
        )

    def _dead_letter_groups(self) -> Iterator[tuple[str, str]]:
        for _, row in self.scan("dead_letter"):
            if row["state"] == "open":
                yield row["queue"], row["reason"]

    def _incident_groups(self) -> Iterator[tuple[str, IncidentCause, str]]:
        for (run_id, _), row in self.scan("incident"):
            run = self.get("run", run_id)
            if row["resolved_at"] is None and run is not None:
                yield self._saga_of(run), IncidentCause(row["cause"]), row["step"]

    def _starts(self) -> Iterator[Row]:
        return (row for _, row in self.scan("pending_request") if row["kind"] == "start")

    def _stranded_sagas(self) -> Iterator[str]:
        alive = {
            (row["name"], row["version"], row["fingerprint"])
            for _, row in self.scan("definition")
            if row["present_until"] > self.now
        }
        for row in self._starts():
            pin = (row["saga"], row["version"], row["fingerprint"])
            if row["fingerprint"] is not None and pin not in alive:
                yield row["saga"]

    def _oldest_age_by_saga(self, runs: Iterable[Row]) -> dict[str, float]:
        ages: dict[str, float] = {}
        for row in runs:
            saga = self._saga_of(row)
            ages[saga] = max(ages.get(saga, 0.0), oldest_age(self.now, [row["started_at"]]))
        return ages

    def _saga_of(self, run: Row) -> str:
        return definition_of(self, run["definition_id"])[0]


def _awaits_definition(request: Row) -> bool:
    is_ready = request["kind"] != "start" and not request["awaits_start"]
    return is_ready and request["definition_id"] is not None


def _count(groups: Iterable[Group], count_limit: int) -> dict[Group, int]:
    return {group: min(number, count_limit) for group, number in Counter(groups).items()}
