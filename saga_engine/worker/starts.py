"""
Starting runs: who gets which definition, whose key it is, and what a repeated start is told.

A key and a run id belong to the first input they came with. Asking again with the same input finds
the same run, whether it was asked over RabbitMQ or in a caller's own transaction; another input is
a conflict. A start that cannot be decided takes no key.

Inputs are compared as they were before they were sealed: two that are the same may be sealed with
different keys. One that cannot be unsealed here is set aside, to be sent again when its key is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saga_engine.broker.answer import AnswerOutcome
from saga_engine.saga.decide import decide
from saga_engine.saga.effect import wake_at
from saga_engine.saga.event import Event
from saga_engine.saga.run import Run
from saga_engine.saga.sealing import SealError, input_place, is_sealed
from saga_engine.saga.trigger import Start
from saga_engine.saga.vocabulary import Json
from saga_engine.settings import Settings
from saga_engine.store import definitions, keys, runs
from saga_engine.store.database import Transaction
from saga_engine.store.keys import KeyHeld, KeyWanted
from saga_engine.store.runs import StoredRun
from saga_engine.worker.admission import Admission
from saga_engine.worker.arrival import Arrival
from saga_engine.worker.catalogue import Catalogue
from saga_engine.worker.ledger import Ledger, status_of
from saga_engine.worker.timeslice import Timeslice

INPUT_SEALED = "input_sealed"
"""Why a start is set aside whose input is sealed with a key that is not here."""


@dataclass(frozen=True, slots=True)
class Begun:
    """
    A start that can be decided, and what it leads to if the run is not there yet.

    `given` is its input as it was before it was sealed; nothing keeps or tells it.
    """

    arrival: Arrival
    row: StoredRun
    events: Sequence[Event]
    given: Json = field(repr=False)


class Starts:
    """The starts of one batch."""

    def __init__(
        self,
        tx: Transaction,
        catalogue: Catalogue,
        admission: Admission,
        ledger: Ledger,
        settings: Settings,
    ) -> None:
        self._most = settings.batch_bytes
        self._tx = tx
        self._catalogue = catalogue
        self._admission = admission
        self._ledger = ledger
        self._begun: dict[str, Begun] = {}
        self._again: list[tuple[Begun, str]] = []

    async def begin(self, arrivals: Sequence[Arrival]) -> None:
        """Start the runs that are asked for, once each."""
        elsewhere = [arrival for arrival in arrivals if self._startable(arrival) is None]
        if elsewhere:
            await self._pass_on(elsewhere)
        wanted = await self._decided(arrivals)
        holders = await self._reserve(wanted)
        for begun in wanted:
            run_id = begun.row.run.run_id
            holder = holders.get(run_id)
            if run_id in holders and holder is None:
                self._ledger.put_by(begun.arrival)
            else:
                await self._consider(begun, holder)
        if self._begun:
            await self._admit()
            await self._insert()
        if self._again:
            await self._answer_again()

    async def _decided(self, arrivals: Sequence[Arrival]) -> list[Begun]:
        """The starts that this worker can decide and that are not refused for their input."""
        decided, turn = [], Timeslice()
        for arrival in arrivals:
            await turn.over()
            number = self._startable(arrival)
            if number is None:
                continue
            try:
                start, given = self._unsealed(arrival)
            except SealError as error:
                await self._set_aside(arrival, f"The input {error}.")
                continue
            saga = self._catalogue.sagas[number]
            decision = decide(
                *(saga, None, start, self._ledger.now, self._catalogue.sealing),
                watch=self._ledger.watch(self._catalogue.watch),
                limits=self._catalogue.limits,
            )
            self._ledger.outcome.failures.extend(decision.failures)
            if decision.run is None:
                await self._refuse_input(arrival, decision.refused or "")
            else:
                row = StoredRun(decision.run, number, wake_at(saga, decision.run))
                decided.append(Begun(arrival, row, decision.events, given))
        return decided

    def _unsealed(self, arrival: Arrival) -> tuple[Start, Json]:
        """The start as it is kept, and its input as it was: what a caller records may be plain."""
        sealing, start = self._catalogue.sealing, start_of(arrival)
        place = input_place(arrival.saga, start.run_id)
        kept = replace(start, input=sealing.sealed(start.input, place))
        return kept, sealing.unsealed(start.input, place)

    def _startable(self, arrival: Arrival) -> int | None:
        return self._catalogue.startable(arrival.saga, arrival.version)

    async def _pass_on(self, arrivals: Sequence[Arrival]) -> None:
        """Keep starts for a worker that has the saga, if one has ever said so; refuse the rest."""
        known = await definitions.versions(self._tx, {arrival.saga for arrival in arrivals})
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

    async def _set_aside(self, arrival: Arrival, problem: str) -> None:
        """Keep a start that can be decided only where a key is that is not here."""
        text = f"{problem} The start is set aside; send it again when the key is there."
        self._ledger.refuse(arrival, AnswerOutcome.REFUSED, text)
        self._ledger.set_aside(arrival, INPUT_SEALED, text)
        if arrival.delivery is None:
            await self._release(arrival)  # the same

    async def _release(self, arrival: Arrival) -> None:
        """Give the key of a start that is refused back, unless its run is there with that key."""
        key = start_of(arrival).key
        if key is not None:
            await keys.release(self._tx, arrival.saga, key, arrival.run_id)

    async def _reserve(self, starts: Sequence[Begun]) -> dict[str, KeyHeld | None]:
        """Who holds the key that each run wants, by the wanting run's id; None: that is not out."""
        wanted = []
        for begun in starts:
            start = start_of(begun.arrival)
            if start.key is not None:
                saga = begun.arrival.saga
                wanted.append(KeyWanted(saga, start.key, start.run_id, begun.given))
        held = await keys.try_reserve(self._tx, wanted, self._catalogue.sealing)
        return {each.run_id: holder for each, holder in zip(wanted, held, strict=True)}

    async def _consider(self, begun: Begun, holder: KeyHeld | None) -> None:
        arrival = begun.arrival
        if holder and holder.problem:
            whose = f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}, whose input"
            await self._set_aside(arrival, f"{whose} {holder.problem}.")
        elif holder and not holder.same_input:
            text = (
                f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}, with another input."
            )
            self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text, holder.run_id)
        elif holder and holder.run_id != arrival.run_id:
            self._again.append((begun, holder.run_id))
        elif arrival.run_id in self._begun:
            self._again.append((begun, arrival.run_id))
        else:
            self._begun[arrival.run_id] = begun

    async def _admit(self) -> None:
        """Let in those whose turn it is, and send the others to wait; see Admission."""
        if any(begun.arrival.delivery for begun in self._begun.values()):
            await self._admission.look(self._tx)
        for run_id, begun in list(self._begun.items()):
            saga = begun.row.run.saga
            # What was recorded has waited already; whoever took it out knew that there is a place.
            if begun.arrival.delivery is None or self._admission.admits(saga):
                self._admission.let_in(saga, self._ledger.entering)
            else:
                self._admission.queue(saga)
                self._ledger.queue(begun.arrival, begun.row.run)
                del self._begun[run_id]

    async def _insert(self) -> None:
        inserted = await runs.insert(self._tx, [begun.row for begun in self._begun.values()])
        for run_id, begun in self._begun.items():
            if run_id in inserted:
                self._ledger.stored[run_id] = begun.row
                self._ledger.record(None, begun.row.run, begun.events, begun.arrival)
                self._ledger.accept(begun.arrival, begun.row.run)
            else:
                self._again.append((begun, run_id))

    async def _answer_again(self) -> None:
        run_ids = {run_id for _, run_id in self._again}
        found = await runs.look(self._tx, run_ids, most=self._most)
        for begun, run_id in self._again:
            # There is no row yet when the start was recorded in a caller's transaction and waits.
            arrival, row = begun.arrival, found.get(run_id)
            try:
                another = row is not None and not self._is_what_it_wants(begun, row.run)
            except SealError as error:
                await self._set_aside(arrival, f"The input of run {run_id} {error}.")
                continue
            if another:
                text = f"Run {run_id} was started with another input or key."
                self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text)
                await self._release(arrival)
                continue
            self._ledger.ignore(arrival, "duplicate")
            status = status_of(row.run) if row else None
            self._ledger.answer(arrival.answer_to, AnswerOutcome.EXISTING, run_id, status)

    def _is_what_it_wants(self, begun: Begun, run: Run) -> bool:
        """Whether a run is of the saga, the key and the input that a start asks for."""
        if (begun.arrival.saga, start_of(begun.arrival).key) != (run.saga, run.key):
            return False
        if is_sealed(run.input) and begun.row.run.input == run.input:
            return True
        place = input_place(run.saga, run.run_id)
        given = self._catalogue.sealing.unsealed(run.input, place)
        return keys.equal_inputs(begun.given, given)


def start_of(arrival: Arrival) -> Start:
    """The trigger of an arrival that is a start."""
    assert isinstance(arrival.trigger, Start), "only starts come here"
    return arrival.trigger
