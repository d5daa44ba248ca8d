import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from rich.cells import cell_len

from saga_engine.cli.config import mask_url
from saga_engine.cli.output import format_cell, print_table
from saga_engine.cli.redrive import rebuild_message
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Message
from saga_engine.store.dead_letter_queries import StoredDeadLetter
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState


def test_a_cell_contains_no_line_breaks_and_control_characters():
    assert format_cell("a\nb\x1b[2J\tc\u202e\x9b") == "a b [2J c  "
    assert format_cell(None) == "-"


def test_a_cell_is_not_interpreted_as_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("name",), [("[red]x[/red] [/]",)], empty="")
    assert "[red]x[/red] [/]" in capsys.readouterr().out


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


def test_nothing_is_wrapped_outside_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    print_table(("run", "why"), [("x", "because " * 90)], empty="")
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:p@h:1/v", "amqp://u:***@h:1/v"),
        ("amqp://u:p:q@r@h/v?key=s#f", "amqp://u:***@h/v?***"),
        ("postgresql+asyncpg://u@/d?host=/x", "postgresql+asyncpg://u@/d?***"),
        ("amqp://h", "amqp://h"),
        ("amqp://u:p@one:1,two:2/v", "amqp://u:***@one:1,two:2/v"),
        ("amqp://u:p@[::1", "amqp://u:***@[::1"),
        ("amqp://u:p/q@h:1/v", "amqp://u:***@h:1/v"),
        ("amqp://u:p?q@h/v?key=s", "amqp://u:***@h/v?***"),
        ("postgresql+asyncpg://u:p#q@h/d", "postgresql+asyncpg://u:***@h/d"),
        ("postgresql+asyncpg:///d?user=u&password=p@h", "postgresql+asyncpg://:***@h"),
        ("k1=8eYQ,k2=@/h", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert mask_url(url) == shown


def stored(letter: DeadLetter) -> StoredDeadLetter:
    """An open dead letter with this message."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return StoredDeadLetter(
        id=1,
        received_at=now,
        state=DeadLetterState.OPEN,
        truncated=False,
        fingerprint="",
        message=letter,
        resolved_at=None,
        resolved_by=None,
        resolved_reason=None,
    )


def headers_of(letter: DeadLetter) -> Mapping[str, object]:
    """The headers of the redriven message."""
    message = rebuild_message(stored(letter))
    assert isinstance(message, Message), message
    return message.headers


@pytest.mark.parametrize("count", [1, "x", None, True, 2**40])
def test_a_redrive_count_is_incremented_or_starts_at_1(count):
    letter = DeadLetter(
        queue="saga.requests",
        reason=DeadLetterReason.BAD_REQUEST,
        detail="",
        body=b"",
        body_size=0,
        headers={"x-saga-redrive-count": count},
    )
    assert headers_of(letter)["x-saga-redrive-count"] == (2 if count in (1, True) else 1)


def test_a_redriven_message_loses_copy_headers_of_its_sender():
    headers = {
        "CC": "saga.requests",
        "BCC": "x",
        "x-death": [],
        "x-delivery-count": 9,
        "own": "kept",
    }
    letter = DeadLetter(
        queue="saga.requests",
        reason=DeadLetterReason.BAD_REQUEST,
        detail="",
        body=b"",
        body_size=0,
        headers=headers,
    )
    assert headers_of(letter) == {"own": "kept", "x-saga-redrive-count": 1}


@pytest.mark.parametrize("mark", ["x-undecodable", "x-truncated"])
def test_a_message_with_incomplete_headers_is_not_redriven(mark):
    letter = DeadLetter(
        queue="saga.requests",
        reason=DeadLetterReason.BAD_REQUEST,
        detail="",
        body=b"",
        body_size=0,
        headers={mark: True},
    )
    assert rebuild_message(stored(letter)) == "Not all of its headers were kept."
