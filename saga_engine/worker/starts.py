"""
Starting runs: who gets which definition, whose key it is, and what a repeated start is told.

A key and a run id belong to the first input they came with. Asking again with the same input finds
the same run, whether it was asked over RabbitMQ or in a caller's own transaction; another input is
a conflict. A start that cannot be decided takes no key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.broker.answer import AnswerOutcome
from saga_engine.saga.decide import decide
from saga_engine.saga.effect import wake_at
from saga_engine.saga.event import Event
from saga_engine.saga.trigger import Start
from saga_engine.saga.vocabulary import Json
from saga_engine.store import definitions, keys, runs
from saga_engine.store.database import Transaction
from saga_engine.store.keys import KeyHeld, KeyWanted
from saga_engine.store.runs import StoredRun
from saga_engine.worker.arrival import Arrival
from saga_engine.worker.catalogue import Catalogue
from saga_engine.worker.ledger import Ledger, status_of


@dataclass(frozen=True, slots=True)
class Begun:
    """A start that can be decided, and what it leads to if the run is not there yet."""

    arrival: Arrival
    row: StoredRun
    events: Sequence[Event]


class Starts:
    """The starts of one batch."""

    def __init__(self, tx: Transaction, catalogue: Catalogue, ledger: Ledger) -> None:
        self._tx = tx
        self._catalogue = catalogue
        self._ledger = ledger
        self._begun: dict[str, Begun] = {}
        self._again: list[tuple[Arrival, str]] = []

    async def begin(self, arrivals: Sequence[Arrival]) -> None:
        """Start the runs that are asked for, once each."""
        elsewhere = [arrival for arrival in arrivals if self._startable(arrival) is None]
        if elsewhere:
            await self._pass_on(elsewhere)
        wanted = await self._decided(arrivals)
        holders = await self._reserve([each.arrival for each in wanted])
        for begun in wanted:
            run_id = begun.row.run.run_id
            holder = holders.get(run_id)
            if run_id in holders and holder is None:
                self._ledger.put_by(begun.arrival)
            else:
                self._consider(begun, holder)
        if self._begun:
            await self._insert()
        if self._again:
            await self._answer_again()

    async def _decided(self, arrivals: Sequence[Arrival]) -> list[Begun]:
        """The starts that this worker can decide and that are not refused for their input."""
        decided = []
        for arrival in arrivals:
            number = self._startable(arrival)
            if number is None:
                continue
            saga = self._catalogue.sagas[number]
            decision = decide(saga, None, arrival.trigger, self._ledger.now)
            if decision.run is None:
                await self._refuse_input(arrival, decision.refused or "")
            else:
                row = StoredRun(decision.run, number, wake_at(saga, decision.run))
                decided.append(Begun(arrival, row, decision.events))
        return decided

    def _startable(self, arrival: Arrival) -> int | None:
        return self._catalogue.startable(arrival.saga, arrival.version)

    async def _pass_on(self, arrivals: Sequence[Arrival]) -> None:
        """Keep starts for a worker that has the saga, if one has ever said so; refuse the rest."""
        known = {(each.name, each.version) for each in await definitions.known(self._tx)}
        names = {name for name, _ in known}
        for arrival in arrivals:
            saga, version = arrival.saga, arrival.version
            if (saga, version) in known or (version is None and saga in names):
                self._ledger.park(arrival)
                continue
            which = f"saga {saga[:100]!r}" + ("" if version is None else f" version {version}")
            text = f"No worker has ever loaded {which}. Check the name, or start a worker with it."
            self._ledger.refuse(arrival, AnswerOutcome.UNKNOWN_SAGA, text)
            self._ledger.set_aside(arrival, "unknown_saga", text)

    async def _refuse_input(self, arrival: Arrival, text: str) -> None:
        self._ledger.refuse(arrival, AnswerOutcome.INVALID, text)
        self._ledger.set_aside(arrival, "invalid_input", text)
        if arrival.delivery is None:
            await self._release(arrival)  # it was reserved in the caller's transaction

    async def _release(self, arrival: Arrival) -> None:
        """Give the key of a start that is refused back, unless its run is there with that key."""
        key = start_of(arrival).key
        if key is not None:
            await keys.release(self._tx, arrival.saga, key, arrival.run_id)

    async def _reserve(self, arrivals: Sequence[Arrival]) -> dict[str, KeyHeld | None]:
        """Who holds the key that each run wants, by the wanting run's id; None: that is not out."""
        wanted = []
        for arrival in arrivals:
            start = start_of(arrival)
            if start.key is not None:
                wanted.append(KeyWanted(arrival.saga, start.key, start.run_id, start.input))
        held = await keys.try_reserve(self._tx, wanted)
        return {each.run_id: holder for each, holder in zip(wanted, held, strict=True)}

    def _consider(self, begun: Begun, holder: KeyHeld | None) -> None:
        arrival = begun.arrival
        if holder and not holder.same_input:
            text = (
                f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}, with another input."
            )
            self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text, holder.run_id)
        elif holder and holder.run_id != arrival.run_id:
            self._again.append((arrival, holder.run_id))
        elif arrival.run_id in self._begun:
            self._again.append((arrival, arrival.run_id))
        else:
            self._begun[arrival.run_id] = begun

    async def _insert(self) -> None:
        inserted = await runs.insert(self._tx, [begun.row for begun in self._begun.values()])
        for run_id, begun in self._begun.items():
            if run_id in inserted:
                self._ledger.stored[run_id] = begun.row
                self._ledger.record(None, begun.row.run, begun.events, begun.arrival)
                self._ledger.accept(begun.arrival, begun.row.run)
            else:
                self._again.append((begun.arrival, run_id))

    async def _answer_again(self) -> None:
        found = await runs.look(self._tx, {run_id for _, run_id in self._again})
        for arrival, run_id in self._again:
            # There is no row yet when the start was recorded in a caller's transaction and waits.
            row = found.get(run_id)
            if row and _wanted(arrival) != (row.run.saga, row.run.key, row.run.input):
                text = f"Run {run_id} was started with another input or key."
                self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text)
                await self._release(arrival)
                continue
            self._ledger.ignore(arrival, "duplicate")
            status = status_of(row.run) if row else None
            self._ledger.answer(arrival.answer_to, AnswerOutcome.EXISTING, run_id, status)


def _wanted(arrival: Arrival) -> tuple[str, str | None, Json]:
    start = start_of(arrival)
    return arrival.saga, start.key, start.input


def start_of(arrival: Arrival) -> Start:
    """The trigger of an arrival that is a start."""
    assert isinstance(arrival.trigger, Start), "only starts come here"
    return arrival.trigger
