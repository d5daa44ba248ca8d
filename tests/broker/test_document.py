"""docs/protocol.md says what the code does."""

import json
import re
from pathlib import Path

import pytest

from saga_engine.amqp.frames import HEADERS_BYTES
from saga_engine.protocol import command
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.topology import ENGINE, policy
from saga_engine.protocol.unreadable import Reason
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome, Status

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
HEADERS = [
    getattr(command, name)
    for name in ("RUN_ID", "SAGA", "VERSION", "STEP", "ATTEMPT", "DIRECTION", "DEADLINE")
] + [command.IDEMPOTENCY_KEY, command.TRACEPARENT]


@pytest.mark.parametrize(
    "word",
    [
        *(reason.value for reason in Reason),
        *(outcome.value for outcome in AnswerOutcome),
        *(status.value for status in Status),
        *(outcome.value for outcome in Outcome if outcome is not Outcome.UNKNOWN),
        *(queue.name for queue in ENGINE.queues),
        *(exchange.name for exchange in ENGINE.exchanges),
        *HEADERS,
    ],
)
def test_word_of_the_contract_is_in_the_document(word):
    assert f"`{word}`" in TEXT


def test_limits_of_the_document_are_those_of_the_code():
    settings = Settings()
    assert f"{settings.body_bytes:,} bytes" in TEXT
    assert f"{settings.body_depth} (`body_depth`)" in TEXT
    assert f"{HEADERS_BYTES:,} bytes" in TEXT
    for name in ("body_values", "header_bytes"):
        assert f"{getattr(settings, name):,} (`{name}`)" in TEXT
    assert f"{settings.header_count} headers (`header_count`)" in TEXT
    assert f"{settings.name_bytes} bytes (AMQP, `name_bytes`)" in TEXT
    assert f"{settings.text_bytes:,} bytes (`text_bytes`)" in TEXT


def test_policy_of_the_document_is_that_of_the_code():
    found = re.search(r"saga-engine '(.+?)' \\\s+'(\{.+?\})'", TEXT, re.DOTALL)
    assert found is not None
    pattern, definition = found.groups()
    assert pattern == policy()["pattern"]
    assert json.loads(definition) == policy()["definition"]


def shown(pattern: str) -> str:
    """What the document shows at a pattern's group."""
    found = re.search(pattern, TEXT)
    assert found is not None
    return found[1]


def test_bytes_of_the_worked_example_are_its_text():
    size = int(shown(r"body-size=(\d+)"))
    raw = bytes.fromhex(shown(r"content-body +((?:[0-9a-f]{2} ?)+)\n"))
    assert len(raw) == size
    assert raw.decode() in TEXT
