"""What this worker decides with: the sagas it has by their runs' definitions, codec and watch."""

from collections.abc import Iterable, Iterator, Mapping

from saga_engine.errors import DefinitionError
from saga_engine.payload.encryption import PLAIN, Sealing
from saga_engine.payload.guard import UNWATCHED, Watch
from saga_engine.payload.limits import LIMITS, Limits
from saga_engine.saga.definition import Saga
from saga_engine.saga.rules import problems


class Catalogue:
    """
    Sagas by the id under which the store has registered them.

    `sealing`: how payloads are sealed. `limits`: what those that are sent may hold. `watch` watches
    the calls into the author's code; `suspected` are the runs whose calls have ended a worker, as
    far as this one knows (see `suspicion`).
    """

    def __init__(
        self,
        sagas: Mapping[int, Saga],
        sealing: Sealing = PLAIN,
        watch: Watch = UNWATCHED,
        limits: Limits = LIMITS,
    ) -> None:
        self.sagas = dict(sagas)
        self.sealing = sealing
        self.watch = watch
        self.limits = limits
        self.suspected: frozenset[str] = frozenset()
        self._startable: dict[tuple[str, int | None], int] = {}
        for number, saga in sorted(sagas.items(), key=lambda item: item[1].version):
            self._startable[saga.name, saga.version] = number
            self._startable[saga.name, None] = number  # the newest comes last

    @property
    def ids(self) -> list[int]:
        """The definitions whose runs this worker can decide."""
        return list(self.sagas)

    @property
    def names(self) -> list[str]:
        """The sagas it can start."""
        return sorted({saga.name for saga in self.sagas.values()})

    def startable(self, name: str, version: int | None) -> int | None:
        """The id of the definition for a new run: that version, or the newest; None: not here."""
        return self._startable.get((name, version))


def sound(sagas: Iterable[Saga]) -> list[Saga]:
    """
    Check each saga, and that no two have one name and version.

    Raises:
        DefinitionError: the first rule that is broken.
    """
    found = list({id(saga): saga for saga in sagas}.values())
    for problem in problems_of(found):
        raise problem
    return found


def problems_of(sagas: Iterable[Saga]) -> Iterator[DefinitionError]:
    """Every rule that is broken, saga by saga."""
    seen: dict[tuple[str, int], Saga] = {}
    for saga in sagas:
        yield from problems(saga)
        other = seen.setdefault((saga.name, saga.version), saga)
        if other is not saga:
            yield DefinitionError(
                f"Saga {saga.name!r} version {saga.version} is declared twice,"
                f" the other at {other.where}.",
                where=saga.where,
                mend="Give one of them another version.",
            )
