"""The registry: which definition a new run gets, and which sagas a worker refuses to load."""

import pytest

from saga_engine.errors import DefinitionError
from saga_engine.worker.registry import SagaRegistry, definition_problems, validated
from tests.kit.parcels import failing_parcels, parcels

REGISTRY = SagaRegistry(
    {7: parcels(version=2), 3: parcels(version=1), 5: failing_parcels(lambda _: None)}
)


@pytest.mark.parametrize(
    ("name", "version", "definition_id"),
    [
        ("parcel", 1, 3),
        ("parcel", 2, 7),
        ("parcel", None, 7),
        ("parcel", 3, None),
        ("fragile", None, 5),
        ("unknown", None, None),
    ],
)
def test_a_start_gets_the_named_version_or_the_newest(name, version, definition_id):
    assert REGISTRY.startable_definition_id(name, version) == definition_id


def test_it_knows_its_definitions_and_sagas():
    assert sorted(REGISTRY.definition_ids) == [3, 5, 7]
    assert REGISTRY.saga_names == ["fragile", "parcel"]
    assert REGISTRY.suspect_run_ids == frozenset()


def test_a_saga_that_is_given_twice_is_loaded_once():
    saga = parcels()
    assert validated([saga, saga]) == [saga]


def test_two_sagas_with_one_name_and_version_are_refused():
    sagas = [parcels(), parcels()]
    [problem] = definition_problems(sagas)
    assert "declared twice" in str(problem)
    with pytest.raises(DefinitionError, match="declared twice"):
        validated(sagas)
