import sys

from saga_engine.cli.output import format_cell, print_table


def test_a_cell_contains_no_line_breaks_and_control_characters():
    assert format_cell("a\nb\x1b[2J\tc\u202e\x9b") == "a b [2J c  "
    assert format_cell(None) == "-"


def test_a_cell_is_not_interpreted_as_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("name",), [("[red]x[/red] [/]",)], empty="")
    assert "[red]x[/red] [/]" in capsys.readouterr().out


def test_nothing_is_wrapped_outside_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    print_table(("run", "why"), [("x", "because " * 90)], empty="")
    assert len(capsys.readouterr().out.splitlines()) == 2
