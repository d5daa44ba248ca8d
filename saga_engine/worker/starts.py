"""
Starting runs: who gets which definition, whose key it is, and what a repeated start is told.

A key belongs to the first input it came with. Asking again with the same input finds the same run,
whether it was asked over RabbitMQ or in a caller's own transaction; another input is a conflict.
"""

from collections.abc import Sequence

from saga_engine.broker.answer import AnswerOutcome
from saga_engine.saga.decide import Decision, decide
from saga_engine.saga.effect import wake_at
from saga_engine.saga.trigger import Start
from saga_engine.store import definitions, keys, runs
from saga_engine.store.database import Transaction
from saga_engine.store.keys import KeyHeld, KeyWanted
from saga_engine.store.runs import StoredRun
from saga_engine.worker.arrival import Arrival
from saga_engine.worker.catalogue import Catalogue
from saga_engine.worker.ledger import Ledger


class Starts:
    """The starts of one batch."""

    def __init__(self, tx: Transaction, catalogue: Catalogue, ledger: Ledger) -> None:
        self._tx = tx
        self._catalogue = catalogue
        self._ledger = ledger
        self._begun: dict[str, tuple[Arrival, Decision]] = {}
        self._again: list[tuple[Arrival, str]] = []

    async def begin(self, arrivals: Sequence[Arrival]) -> None:
        """Start the runs that are asked for, once each."""
        elsewhere = [arrival for arrival in arrivals if self._startable(arrival) is None]
        if elsewhere:
            await self._pass_on(elsewhere)
        wanted = [arrival for arrival in arrivals if self._startable(arrival) is not None]
        holders = await self._reserve(wanted)
        for arrival in wanted:
            self._consider(arrival, holders.get(arrival.run_id))
        if self._begun:
            await self._insert()
        if self._again:
            await self._answer_again()

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
            text = f"No worker has ever loaded {which}."
            self._ledger.refuse(arrival, AnswerOutcome.UNKNOWN_SAGA, text)
            self._ledger.set_aside(arrival, "unknown_saga", text)

    async def _reserve(self, arrivals: Sequence[Arrival]) -> dict[str, KeyHeld]:
        """Who holds the key that each run wants, by the wanting run's id."""
        wanted = []
        for arrival in arrivals:
            start = start_of(arrival)
            if start.key is not None:
                wanted.append(KeyWanted(arrival.saga, start.key, start.run_id, start.input))
        held = await keys.reserve(self._tx, wanted)
        return {each.run_id: holder for each, holder in zip(wanted, held, strict=True)}

    def _consider(self, arrival: Arrival, holder: KeyHeld | None) -> None:
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
            self._decide(arrival)

    def _decide(self, arrival: Arrival) -> None:
        number = self._startable(arrival)
        assert number is not None, "looked for before"
        saga = self._catalogue.sagas[number]
        decision = decide(saga, None, arrival.trigger, self._ledger.now)
        if decision.run is None:
            text = decision.refused or ""
            self._ledger.refuse(arrival, AnswerOutcome.INVALID, text)
            self._ledger.set_aside(arrival, "invalid_input", text)
            return
        stored = StoredRun(decision.run, number, wake_at(saga, decision.run))
        self._ledger.stored[arrival.run_id] = stored
        self._begun[arrival.run_id] = (arrival, decision)

    async def _insert(self) -> None:
        stored = self._ledger.stored
        new = await runs.insert(self._tx, [stored[run_id] for run_id in self._begun])
        for run_id, (arrival, decision) in self._begun.items():
            if run_id in new:
                assert decision.run is not None, "only those were begun"
                self._ledger.record(None, decision.run, decision.events, arrival)
                self._ledger.accept(arrival, decision.run)
            else:
                del stored[run_id]
                self._again.append((arrival, run_id))

    async def _answer_again(self) -> None:
        found = await runs.status(self._tx, {run_id for _, run_id in self._again})
        for arrival, run_id in self._again:
            self._ledger.ignore(arrival, "duplicate")
            # There is no row yet when the start was recorded in a caller's transaction and waits.
            status = found.get(run_id)
            self._ledger.answer(arrival.answer_to, AnswerOutcome.EXISTING, run_id, status)


def start_of(arrival: Arrival) -> Start:
    """The trigger of an arrival that is a start."""
    assert isinstance(arrival.trigger, Start), "only starts come here"
    return arrival.trigger
