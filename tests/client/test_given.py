import pytest

from saga_engine.client.given import input_json, key_text, name_and_version, run_uuid
from saga_engine.errors import ConfigurationError, InvalidInput
from tests.client.engine import Greeting, greet


def test_json_goes_as_it_came_and_a_model_with_its_defaults():
    assert input_json(greet, {"name": "Ann"}) == {"name": "Ann"}
    assert input_json("greet", {"name": "Ann"}) == {"name": "Ann"}
    assert input_json(greet, Greeting(name="Ann")) == {"name": "Ann", "loud": False}
    assert input_json("greet", Greeting(name="Ann")) == {"name": "Ann", "loud": False}


def test_what_does_not_fit_the_definition_is_refused_without_its_values():
    with pytest.raises(InvalidInput, match=r"greet.*name: missing") as refused:
        input_json(greet, {"secret": "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("value", [object(), {1: "a"}, {"a": {2}}, b"x", 2**70, "a\0b", "\ud800"])
def test_what_json_or_postgresql_cannot_hold_is_refused(value):
    with pytest.raises(InvalidInput, match="not JSON that can be stored"):
        input_json("greet", value)


def test_a_version_must_be_that_of_the_definition():
    assert name_and_version(greet, None) == ("greet", 1)
    assert name_and_version("greet", 3) == ("greet", 3)
    with pytest.raises(ConfigurationError, match="Version 2"):
        name_and_version(greet, 2)


@pytest.mark.parametrize("key", ["", "x" * 1001, "a\0"])
def test_a_key_that_cannot_be_kept_is_refused(key):
    with pytest.raises(InvalidInput, match="1 to 1000"):
        key_text(key)


def test_a_run_id_is_a_uuid():
    with pytest.raises(InvalidInput, match="'o-1' is no run id"):
        run_uuid("o-1")
