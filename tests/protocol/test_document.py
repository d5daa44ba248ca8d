"""docs/protocol.md agrees with the code."""

import json
import re
from pathlib import Path

import pytest

from saga_engine.amqp.frames import MAX_HEADER_BYTES
from saga_engine.protocol import command
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.topology import queue_policy, shared_topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome, Status

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
HEADERS = (
    command.RUN_ID_HEADER,
    command.SAGA_HEADER,
    command.VERSION_HEADER,
    command.STEP_HEADER,
    command.ATTEMPT_HEADER,
    command.DIRECTION_HEADER,
    command.DEADLINE_HEADER,
    command.IDEMPOTENCY_KEY_HEADER,
    command.TRACEPARENT_HEADER,
)


@pytest.mark.parametrize(
    "word",
    [
        *(reason.value for reason in DeadLetterReason),
        *(outcome.value for outcome in AnswerOutcome),
        *(status.value for status in Status),
        *(outcome.value for outcome in Outcome if outcome is not Outcome.UNKNOWN),
        *(queue.name for queue in shared_topology(1).queues),
        *(exchange.name for exchange in shared_topology(1).exchanges),
        *HEADERS,
    ],
)
def test_document_has_every_word_of_the_contract(word):
    assert f"`{word}`" in TEXT


def test_document_has_the_limits_of_the_code():
    settings = Settings()
    assert f"{settings.max_body_bytes:,} bytes" in TEXT
    assert f"{settings.max_body_depth} (`max_body_depth`)" in TEXT
    assert f"{MAX_HEADER_BYTES:,} bytes" in TEXT
    for name in ("max_body_json_values", "max_header_bytes"):
        assert f"{getattr(settings, name):,} (`{name}`)" in TEXT
    assert f"{settings.max_header_count} headers (`max_header_count`)" in TEXT
    assert f"{settings.max_name_bytes} bytes (AMQP, `max_name_bytes`)" in TEXT
    assert f"{settings.max_request_text_bytes:,} bytes (`max_request_text_bytes`)" in TEXT


def test_document_has_the_policy_of_the_code():
    found = re.search(r"saga-engine '(.+?)' \\\s+'(\{.+?\})'", TEXT, re.DOTALL)
    assert found is not None
    pattern, definition = found.groups()
    assert pattern == queue_policy()["pattern"]
    assert json.loads(definition) == queue_policy()["definition"]


def shown(pattern: str) -> str:
    """The first group of a pattern in the document."""
    found = re.search(pattern, TEXT)
    assert found is not None
    return found[1]


def test_bytes_of_the_worked_example_match_its_text():
    size = int(shown(r"body-size=(\d+)"))
    raw = bytes.fromhex(shown(r"content-body +((?:[0-9a-f]{2} ?)+)\n"))
    assert len(raw) == size
    assert raw.decode() in TEXT
