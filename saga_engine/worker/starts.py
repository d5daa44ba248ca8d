"""
Starting runs: who gets which definition, whose key it is, and what a repeated start is told.

A key and a run id belong to the first input they came with. Asking again with the same input finds
the same run, whether it was asked over RabbitMQ or in a caller's own transaction; another input is
a conflict. A start that cannot be decided takes no key.

Inputs are compared as they were before they were sealed: two that are the same may be sealed with
different keys. One that cannot be unsealed here is set aside, to be sent again when its key is.

A start that was accepted is never refused: what keeps it from going on is an incident of its run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from saga_engine.decider.decide import begin_blocked, decide
from saga_engine.decider.effects import wake_at
from saga_engine.decider.events import Event
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import PAYLOAD_SEALED, SealError, input_place, is_sealed
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.settings import Settings
from saga_engine.store import business_keys, definitions, pending_requests, runs
from saga_engine.store.business_keys import KeyHeld, KeyWanted
from saga_engine.store.database import Transaction
from saga_engine.store.runs import RunStatus, StoredRun
from saga_engine.vocabulary import IncidentCause, Json, Status
from saga_engine.worker import decode_pending
from saga_engine.worker.admission import Admission
from saga_engine.worker.change_set import Ledger, status_of
from saga_engine.worker.registry import Catalogue
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import Arrival, Unread

INPUT_SEALED = "input_sealed"
"""Why a start is set aside whose input is sealed with a key that is not here."""


@dataclass(frozen=True, slots=True)
class Begun:
    """
    A start that can be decided, and what it leads to if the run is not there yet.

    `given` is its input as it was before it was sealed; nothing keeps or tells it. Where it could
    not be unsealed it is `unreadable`, and is compared with nothing.
    """

    arrival: Arrival
    row: StoredRun
    events: Sequence[Event]
    given: Json = field(repr=False)
    unreadable: bool = False


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
        self._settings = settings
        self._tx = tx
        self._catalogue = catalogue
        self._admission = admission
        self._ledger = ledger
        self._begun: dict[str, Begun] = {}
        self._again: list[tuple[Begun, str]] = []

    async def begin(self, arrivals: Sequence[Arrival]) -> None:
        """Start the runs that are asked for, once each."""
        arrivals = await self._with_ids_that_fit(arrivals)
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

    async def begin_as_fault(self, arrival: Arrival, text: str) -> None:
        """Begin a run that was accepted and whose start hits a bug of ours, without deciding it."""
        begun = self._blocked(arrival, IncidentCause.ENGINE_FAULT, text)
        self._begun[arrival.run_id] = begun
        self._admission.let_in(arrival.saga, self._ledger.entering)
        await self._insert()
        for again, _ in self._again:
            self._ledger.ignore(again.arrival, "duplicate")

    async def _with_ids_that_fit(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Leave out the starts of new runs whose id belongs to no month that is kept."""
        problems = {
            arrival.run_id: problem
            for arrival in arrivals
            if arrival.delivery is not None  # what was recorded has been looked at already
            and (problem := self._admission.misfit(arrival.run_id, self._ledger.now))
        }
        if not problems:
            return list(arrivals)
        problems = {
            run_id: problem
            for run_id, problem in problems.items()
            if run_id not in await pending_requests.known(self._tx, problems)  # asked for again
        }
        for arrival in arrivals:
            if arrival.run_id in problems and arrival.delivery is not None:
                text = problems[arrival.run_id]
                self._ledger.refuse(arrival, AnswerOutcome.INVALID, text)
                self._ledger.set_aside(arrival, "invalid_run_id", text)
        return [each for each in arrivals if each.run_id not in problems or each.delivery is None]

    async def _decided(self, arrivals: Sequence[Arrival]) -> list[Begun]:
        """The starts that this worker can decide and that are not refused for their input."""
        decided, turn = [], Timeslice()
        for arrival in arrivals:
            await turn.over()
            number = self._startable(arrival)
            if number is None:
                continue
            if arrival.problem:
                decided.append(self._blocked(arrival, IncidentCause.INPUT_INVALID, arrival.problem))
                continue
            try:
                start, given = self._unsealed(arrival)
            except SealError as error:
                if arrival.fingerprint is None:
                    await self._set_aside(arrival, f"The input {error}.")
                else:
                    decided.append(self._blocked(arrival, PAYLOAD_SEALED, f"The input {error}."))
                continue
            saga = self._catalogue.sagas[number]
            decision = decide(
                *(saga, None, start, self._ledger.now, self._catalogue.sealing),
                watch=self._ledger.watch(self._catalogue.watch),
                limits=self._catalogue.limits,
            )
            self._ledger.outcome.failures.extend(decision.failures)
            if decision.run is None and arrival.fingerprint is None:
                await self._refuse_input(arrival, decision.refused or "")
            elif decision.run is None:
                blocked = self._blocked(
                    arrival, IncidentCause.INPUT_INVALID, decision.refused or ""
                )
                decided.append(replace(blocked, given=given, unreadable=False))
            else:
                row = StoredRun(decision.run, number, wake_at(saga, decision.run))
                decided.append(Begun(arrival, row, decision.events, given))
        return decided

    def _blocked(self, arrival: Arrival, cause: str, text: str, *, keyless: bool = False) -> Begun:
        """Begin a run that was accepted and cannot go on: a person decides."""
        number = self._startable(arrival)
        assert number is not None, "only what can be started here is taken out"
        saga, start = self._catalogue.sagas[number], start_of(arrival)
        start = replace(start, key=None if keyless else start.key)
        decision = begin_blocked(saga, start, self._ledger.now, cause, text)
        assert decision.run is not None, "a blocked run begins whatever its input is"
        row = StoredRun(decision.run, number, wake_at(saga, decision.run))
        return Begun(arrival, row, decision.events, None, unreadable=True)

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
            await business_keys.release(self._tx, arrival.saga, key, arrival.run_id)

    async def _reserve(self, starts: Sequence[Begun]) -> dict[str, KeyHeld | None]:
        """Who holds the key that each run wants, by the wanting run's id; None: that is not out."""
        wanted = []
        for begun in starts:
            start = start_of(begun.arrival)
            if start.key is not None and not begun.unreadable:
                saga = begun.arrival.saga
                wanted.append(KeyWanted(saga, start.key, start.run_id, begun.given))
        held = await business_keys.try_reserve(self._tx, wanted, self._catalogue.sealing)
        return {each.run_id: holder for each, holder in zip(wanted, held, strict=True)}

    async def _consider(self, begun: Begun, holder: KeyHeld | None) -> None:
        arrival = begun.arrival
        if holder and arrival.fingerprint is not None:
            if holder.run_id != arrival.run_id:
                text = f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}."
                begun = self._blocked(arrival, IncidentCause.KEY_CONFLICT, text, keyless=True)
            self._begin_once(begun)
        elif holder and holder.problem:
            whose = f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}, whose input"
            await self._set_aside(arrival, f"{whose} {holder.problem}.")
        elif holder and not holder.same_input:
            text = (
                f"Key {start_of(arrival).key!r} belongs to run {holder.run_id}, with another input."
            )
            self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text, holder.run_id)
        elif holder and holder.run_id != arrival.run_id:
            self._again.append((begun, holder.run_id))
        else:
            self._begin_once(begun)

    def _begin_once(self, begun: Begun) -> None:
        run_id = begun.arrival.run_id
        if run_id in self._begun:
            self._again.append((begun, run_id))
        else:
            self._begun[run_id] = begun

    async def _admit(self) -> None:
        """Let in those whose turn it is, and send the others to wait; see Admission."""
        if any(begun.arrival.delivery for begun in self._begun.values()):
            await self._admission.look(self._tx)
        later = []
        for run_id, begun in list(self._begun.items()):
            saga = begun.row.run.saga
            # What was recorded has waited already; whoever took it out knew that there is a place.
            if begun.arrival.delivery is None or self._admission.admits(saga):
                self._admission.let_in(saga, self._ledger.entering)
            else:
                self._admission.queue(saga)
                later.append(self._begun.pop(run_id))
        if later:
            await self._queue(later)

    async def _queue(self, later: Sequence[Begun]) -> None:
        """Let starts wait, unless their runs are there or wait already."""
        there = await pending_requests.known(self._tx, [begun.arrival.run_id for begun in later])
        for begun in later:
            run_id = begun.arrival.run_id
            if run_id in there:
                self._again.append((begun, run_id))
            else:
                self._ledger.queue(begun.arrival, begun.row.run)

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
        wanted = {run_id for _, run_id in self._again}
        found = await runs.look(self._tx, wanted, most=self._settings.batch_bytes)
        # There is no row yet when the start was accepted and waits.
        waiting = await self._look_at_the_waiting(wanted - found.keys())
        for begun, run_id in self._again:
            row, start = found.get(run_id), waiting.get(run_id)
            try:
                another = self._is_another(begun, row.run if row else None, start)
            except SealError as error:
                await self._not_comparable(begun.arrival, run_id, error)
                continue
            if another:
                await self._conflict(begun.arrival, run_id)
                continue
            self._ledger.ignore(begun.arrival, "duplicate")
            waits = _waiting_status(start) if isinstance(start, Arrival) else None
            status = status_of(row.run) if row else waits
            self._ledger.answer(begun.arrival.answer_to, AnswerOutcome.EXISTING, run_id, status)

    async def _not_comparable(self, arrival: Arrival, run_id: str, error: SealError) -> None:
        if arrival.fingerprint is None:
            await self._set_aside(arrival, f"The input of run {run_id} {error}.")
        else:
            self._ledger.ignore(arrival, "duplicate")  # whoever asked hears how that run stands

    async def _conflict(self, arrival: Arrival, run_id: str) -> None:
        text = f"Run {run_id} was started with another input or key."
        self._ledger.refuse(arrival, AnswerOutcome.CONFLICT, text)
        await self._release(arrival)

    async def _look_at_the_waiting(self, run_ids: Collection[str]) -> dict[str, Arrival | Unread]:
        lengths = decode_pending.lengths(self._settings)
        found = await pending_requests.look_at_starts(self._tx, run_ids, lengths)
        return {each: decode_pending.read_one(item, self._settings) for each, item in found.items()}

    def _is_another(self, begun: Begun, run: Run | None, start: Arrival | Unread | None) -> bool:
        """Whether what has the id, a run or a start that waits, is not what a start asks for."""
        if run is not None:
            return not self._is_what_it_wants(begun, run)
        if start is None:
            return False
        if isinstance(start, Unread):
            return True
        waits, asks = start_of(start), start_of(begun.arrival)
        if (start.saga, waits.key) != (begun.arrival.saga, asks.key):
            return True
        place = input_place(start.saga, begun.arrival.run_id)
        given = self._catalogue.sealing.unsealed(waits.input, place)
        return not business_keys.equal_inputs(begun.given, given)

    def _is_what_it_wants(self, begun: Begun, run: Run) -> bool:
        """Whether a run is of the saga, the key and the input that a start asks for."""
        if (begun.arrival.saga, start_of(begun.arrival).key) != (run.saga, run.key):
            return False
        if is_sealed(run.input) and begun.row.run.input == run.input:
            return True
        place = input_place(run.saga, run.run_id)
        given = self._catalogue.sealing.unsealed(run.input, place)
        return business_keys.equal_inputs(begun.given, given)


def _waiting_status(start: Arrival) -> RunStatus | None:
    """How the run of a start that waits stands; None where no version is known yet."""
    if start.version is None:
        return None
    return RunStatus(Status.RUNNING, start.saga, start.version, start_of(start).key)


def start_of(arrival: Arrival) -> Start:
    """The trigger of an arrival that is a start."""
    assert isinstance(arrival.trigger, Start), "only starts come here"
    return arrival.trigger
