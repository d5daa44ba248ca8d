"""A command line that cannot be run is answered with the one that can."""

import pytest

from saga_engine.cli.main import run_command

MISSING = (
    ("projections retry orders", "--reason", "projections retry orders --reason REASON"),
    ("projections retry", "NAME and --reason", "projections retry NAME --reason REASON"),
    ("feeds retry orders --json", "--reason", "feeds retry orders --json --reason REASON"),
    ("feeds discard orders", "POSITION and", "feeds discard orders POSITION --reason REASON"),
    ("feeds rewind orders", "--to", "feeds rewind orders --to TO"),
    ("feeds rewind o --to --reason y", "a value for --to", "feeds rewind o --to TO --reason y"),
    ("start", "SAGA and --input", "start SAGA --input INPUT"),
    ("tail --type a --from", "a value for --from", "tail --type a --from FROM"),
)


@pytest.mark.parametrize(("typed", "needs", "corrected"), MISSING)
def test_a_missing_argument_is_named_with_the_corrected_command(typed, needs, corrected, capsys):
    assert run_command(typed.split()) == 2
    printed = capsys.readouterr().err
    assert f" needs {needs}" in printed
    assert printed.endswith(f"Run: saga-engine {corrected}\n")


@pytest.mark.parametrize(("value", "corrected"), [(" why", "why"), ("", "REASON")])
def test_a_misspelt_option_is_named_beside_the_right_one(value, corrected, capsys):
    assert run_command(f"projections retry orders --resaon{value}".split()) == 2
    assert capsys.readouterr().err == (
        "saga-engine: `projections retry` needs --reason, not --resaon. Run: saga-engine"
        f" projections retry orders --reason {corrected}\n"
    )


def test_a_corrected_command_can_be_pasted_into_a_shell(capsys):
    assert run_command(["projections", "skip", "my orders"]) == 2
    assert "skip 'my orders' POSITION --reason REASON\n" in capsys.readouterr().err


def test_other_mistakes_name_the_help_of_the_command(capsys):
    cases = (
        ("projections retry a b --reason c", "retry` has no argument for 'b'", "projections retry"),
        ("projections retry a --reason c --jsn", "Did you mean --json?", "projections retry"),
        ("projections skip a b --reason c", '"b" into int', "projections skip"),
        ("projections rtry", "Did you mean projections retry?", "projections"),
    )
    for typed, problem, command in cases:
        assert run_command(typed.split()) == 2
        printed = capsys.readouterr().err
        assert problem in printed
        assert printed.endswith(f" See `saga-engine {command} --help`.\n")


def test_every_command_with_a_required_argument_names_it(capsys):
    for command in ("cancel", "resolve", "recover", "rotate-token-key", "wait", "check", "graph"):
        assert run_command([command]) == 2
        assert f"saga-engine: `{command}` needs " in capsys.readouterr().err
