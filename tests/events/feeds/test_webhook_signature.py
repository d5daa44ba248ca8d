"""A webhook is signed as another library verifies it, and no text has a secret."""

import base64
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from saga_engine.events.feeds.webhook_signature import InvalidSecret, WebhookSecrets

NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 64).decode()
BODY = '{"customer":"mára"}'.encode()


def now() -> int:
    """The receiver compares it with its own clock."""
    return int(time.time())


def test_the_signature_is_the_one_of_another_library():
    signed_at = now()
    headers = WebhookSecrets.parse(NEW).sign("msg_1", signed_at, BODY)
    at = datetime.fromtimestamp(signed_at, UTC)
    assert headers["webhook-signature"] == Webhook(NEW).sign("msg_1", at, BODY.decode())


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_while_a_secret_is_replaced_both_verify(secret):
    headers = WebhookSecrets.parse(f"{NEW} {OLD}").sign("msg_1", now(), BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    assert Webhook(secret).verify(BODY, headers) == {"customer": "mára"}


@pytest.mark.parametrize("altered", ["body", "webhook-id", "webhook-timestamp", "secret"])
def test_what_was_altered_does_not_verify(altered):
    headers = WebhookSecrets.parse(NEW).sign("msg_1", now(), BODY)
    if altered in headers:
        headers[altered] = {"webhook-id": "msg_2", "webhook-timestamp": str(now() + 1)}[altered]
    body = b"{}" if altered == "body" else BODY
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER if altered == "secret" else NEW).verify(body, headers)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 secrets"),
        (" ".join([NEW] * 5), "has 5 secrets"),
        (NEW.removeprefix("whsec_"), "does not begin with whsec_"),
        ("whsec_" + "?" * 32, "not base64"),
        ("whsec_" + base64.b64encode(b"s" * 23).decode(), "a secret of 23 bytes"),
        ("whsec_" + base64.b64encode(b"s" * 65).decode(), "a secret of 65 bytes"),
        (f"{NEW},{OLD}", "not base64"),
    ],
)
def test_an_unusable_secret_is_refused_and_not_shown(text, problem):
    with pytest.raises(InvalidSecret, match=problem) as raised:
        WebhookSecrets.parse(text)
    assert not text or text.removeprefix("whsec_")[:12] not in str(raised.value)


def test_secrets_are_not_in_a_text():
    secrets = WebhookSecrets.parse(NEW)
    assert "n" * 8 not in repr(secrets)
