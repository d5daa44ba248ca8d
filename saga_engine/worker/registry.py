"""The registry of sagas: what this worker can decide, and the tools it decides with."""

from collections.abc import Iterable, Iterator, Mapping

from saga_engine.errors import DefinitionError
from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.saga.definition import Saga
from saga_engine.saga.rules import problems


class SagaRegistry:
    """
    The sagas that this worker has loaded, by the ids of their definitions in the store.

    Attributes:
        encryption: encrypts and decrypts payloads.
        time_limit: interrupts calls into user code that run too long.
        limits: what the payload of a command may hold.
        suspect_run_ids: the crash suspects, as this worker last read them; see `crash_suspects`.
    """

    def __init__(
        self,
        sagas: Mapping[int, Saga],
        encryption: PayloadEncryption = NO_ENCRYPTION,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
        limits: BodyLimits = DEFAULT_LIMITS,
    ) -> None:
        self.sagas = dict(sagas)
        self.encryption = encryption
        self.time_limit = time_limit
        self.limits = limits
        self.suspect_run_ids: frozenset[str] = frozenset()
        self._definition_ids: dict[tuple[str, int | None], int] = {}
        for definition_id, saga in sorted(sagas.items(), key=lambda item: item[1].version):
            self._definition_ids[saga.name, saga.version] = definition_id
            self._definition_ids[saga.name, None] = definition_id  # the newest version comes last

    @property
    def definition_ids(self) -> list[int]:
        """The ids of the definitions whose runs this worker can decide."""
        return list(self.sagas)

    @property
    def saga_names(self) -> list[str]:
        """The names of the sagas that this worker can start."""
        return sorted({saga.name for saga in self.sagas.values()})

    def startable_definition_id(self, name: str, version: int | None) -> int | None:
        """The definition of a new run: that version or the newest; None if it is not loaded."""
        return self._definition_ids.get((name, version))


def validated(sagas: Iterable[Saga]) -> list[Saga]:
    """
    Check each saga, and that no two have the same name and version.

    Raises:
        DefinitionError: the first problem found.
    """
    unique_sagas = list({id(saga): saga for saga in sagas}.values())
    for problem in definition_problems(unique_sagas):
        raise problem
    return unique_sagas


def definition_problems(sagas: Iterable[Saga]) -> Iterator[DefinitionError]:
    """Every problem, saga by saga."""
    seen: dict[tuple[str, int], Saga] = {}
    for saga in sagas:
        yield from problems(saga)
        other = seen.setdefault((saga.name, saga.version), saga)
        if other is not saga:
            yield DefinitionError(
                f"Saga {saga.name!r} version {saga.version} is declared twice,"
                f" the other at {other.source_location}.",
                location=saga.source_location,
                fix="Give one of them another version.",
            )
