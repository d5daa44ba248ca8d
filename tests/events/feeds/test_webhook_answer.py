"""What an answer means is what Standard Webhooks says, with the next action."""

from email.utils import formatdate

import pytest

from saga_engine.events.feeds.webhook_answer import Verdict, read_answer

NOW = 1_795_435_200.0


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (200, Verdict.DELIVERED, ""),
        (204, Verdict.DELIVERED, ""),
        (299, Verdict.DELIVERED, ""),
        (301, Verdict.UNAVAILABLE, "a redirect, which is never followed. Declare the URL"),
        (308, Verdict.UNAVAILABLE, "a redirect"),
        (400, Verdict.REFUSED, "the signature"),
        (401, Verdict.REFUSED, "Give the receiver the secret of the feed"),
        (404, Verdict.REFUSED, "Correct the URL"),
        (410, Verdict.GONE, "wants no more events. Remove the webhook"),
        (413, Verdict.REFUSED, "Raise the limit"),
        (422, Verdict.REFUSED, "Its log says why"),
        (429, Verdict.UNAVAILABLE, "overloaded"),
        (500, Verdict.REFUSED, "Its log says why"),
        (502, Verdict.REFUSED, "Its log says why"),
        (503, Verdict.REFUSED, "Its log says why"),
        (999, Verdict.REFUSED, "Its log says why"),
        (100, Verdict.REFUSED, ""),
    ],
)
def test_each_status_has_a_meaning_and_a_next_action(status, verdict, words):
    answer = read_answer(status, None, NOW)
    assert answer.verdict is verdict
    assert words in answer.problem
    assert (answer.problem == "") is (verdict is Verdict.DELIVERED)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 0.0),
        ("9" * 400, 999_999_999.0),
        ("-5", None),
        ("soon", None),
        ("٣", None),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_receiver_says_how_long_to_wait(header, seconds, status):
    answer = read_answer(status, header, NOW)
    assert answer.retry_after == seconds
    overloaded = status == 429 or seconds is not None
    assert answer.verdict is (Verdict.UNAVAILABLE if overloaded else Verdict.REFUSED)
