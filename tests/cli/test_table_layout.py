"""A table fits its terminal, and ids are never wrapped."""

import sys
from uuid import uuid4

import pytest
from rich.cells import cell_len

from saga_engine.cli.output import print_table


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_a_table_fits_the_terminal_without_cutting_ids(width, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    ids = [f"{uuid4()}/1" for _ in range(3)]
    why = "No queue takes this command. " * 4 + "宛先なし"
    columns = ("incident", "saga", "key", "step", "direction", "cause", "opened", "details")
    more = ("place-order", "k" * 70, "charge", "action", "step_failed", "2026-11-28 03:00:00", why)
    print_table(columns, [(each, *more) for each in ids], empty="")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(any(each in line for line in lines) for each in ids)
    text = " ".join(lines)
    assert text.count("k") - text.count("key") - text.count("takes") == 210
    assert text.count("step_failed") == text.count("place-order") == 3
    assert text.count("takes") == 12
    assert text.count("宛先なし") == 3


def test_a_narrow_table_has_one_line_per_row(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("run", "status"), [(str(uuid4()), "completed")], empty="")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_id_wider_than_the_terminal_is_not_cut(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    run_id = str(uuid4())
    print_table(("what", "run", "why"), [("x", run_id, "because " * 9)], empty="")
    lines = capsys.readouterr().out.splitlines()
    assert f"  {run_id}" in lines
    assert max(len(each) for each in lines if run_id not in each) <= 20
