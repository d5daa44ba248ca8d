"""Passwords are redacted in every notation, and no text forges a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.telemetry.redaction import redact_secrets, sanitize_line
from tests.kit.growth import time_ratio


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:hunter2@host:5672/vhost",
        "cannot reach postgresql+asyncpg://user:hunter2@host/db today",
        "amqps://:hunter2@host",
        "amqp://user:hunt@er2:hunter2@host",
        "url='amqp://user:hunter2@host' failed",
        "password=hunter2",
        "PGPASSWORD='hunter2'",
        '{"password": "hunter2"}',
        "host=db password = hunter2 user=x",
        "amqp://host/?secret=hunter2&x=1",
        "api_key: hunter2",
        "Authorization token=hunter2",
    ],
)
def test_a_password_is_redacted(text):
    assert "hunter2" not in redact_secrets(text)
    assert "***" in redact_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "amqp://host:5672/vhost",
        "https://www.rabbitmq.com/docs/confirms",
        "run 0190 finished at 12:30",
        "write to ann@example.org",
        "the password was refused",
    ],
)
def test_text_without_a_password_is_unchanged(text):
    assert redact_secrets(text) == text


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    shown = sanitize_line(text, max_length=100)

    assert len(shown.splitlines()) <= 1
    assert not set(shown) & {"\x1b", "\x00", "\u202e", "\u2066", "\x9b", "\x7f"}
    shown.encode()


def test_a_lone_surrogate_is_escaped():
    assert sanitize_line("a\ud800b").encode() == b"a\\ud800b"


def test_a_long_text_is_truncated():
    assert sanitize_line("x" * 5000, max_length=10) == "x" * 10 + "…"


@pytest.mark.parametrize(
    "part", ["://:", "://", "://a:b ", "password", "token:'", 'secret="', "@:"]
)
def test_redaction_takes_linear_time(part):
    def redact(size):
        redact_secrets(part * (size // len(part)))

    # Four times the text is 4 times the work; it was 16 times where it grew with the square.
    assert time_ratio(redact, 65_536, 262_144) < 10
