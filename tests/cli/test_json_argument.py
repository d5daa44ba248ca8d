"""JSON of an argument, a file or stdin, and durations."""

from datetime import timedelta

import pytest

from saga_engine.cli.json_argument import parse_duration, parse_json
from saga_engine.errors import ConfigurationError
from tests.kit.command_line import saga_engine

ANN = '{"name": "Ann"}'


async def test_input_comes_from_a_file_or_from_stdin(engine, tmp_path):
    (tmp_path / "input.json").write_text(ANN)
    file = await engine("start", "greet", "--input", f"@{tmp_path}/input.json", "--wait")
    piped = await engine("start", "greet", "--input", "-", "--wait", stdin=ANN)
    assert (file.exit_code, piped.exit_code) == (0, 0)
    assert engine.greeter.greeted == ["Ann", "Ann"]


async def test_invalid_json_exits_2_without_a_request():
    for typed in ("{", "", "@nowhere.json", "NaN"):
        ran = await saga_engine("start", "greet", "--input", typed)
        assert (ran.exit_code, ran.out) == (2, "")
        assert ran.err.startswith("saga-engine: --input")
        assert len(ran.err.splitlines()) == 1


def test_json_is_read_from_the_argument_or_from_a_file(tmp_path):
    (tmp_path / "input.json").write_text('{"a": [1, "\u00e9"]}')
    assert parse_json('{"a": [1, "\u00e9"]}', "--input") == {"a": [1, "\u00e9"]}
    assert parse_json(f"@{tmp_path}/input.json", "--input") == {"a": [1, "\u00e9"]}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{", "--input is not JSON"),
        ("", "--input is not JSON"),
        ("@/no/such.json", "--input: /no/such.json cannot be read: No such file"),
        ("@/dev/zero", "--input: /dev/zero cannot be read: it has more than"),
        ("18446744073709551616", "an integer beyond 64 bits"),
        ('"\\u0000"', "NUL"),
    ],
)
def test_json_that_cannot_be_read_or_stored_is_refused(argument, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_json(argument, "--input")


@pytest.mark.parametrize(
    ("argument", "seconds"), [("90s", 90), ("90", 90), ("10m", 600), ("2h", 7200), ("3d", 259_200)]
)
def test_a_duration_is_a_number_and_a_unit(argument, seconds):
    assert parse_duration(argument, "--older-than") == timedelta(seconds=seconds)


@pytest.mark.parametrize("argument", ["", "h", "-1s", "1.5h", "1 h", "1w", "1234567", "\u0661s"])
def test_an_invalid_duration_is_refused(argument):
    with pytest.raises(ConfigurationError, match="--older-than is a number"):
        parse_duration(argument, "--older-than")
