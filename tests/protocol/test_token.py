from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saga_engine.protocol.token import (
    CommandRef,
    new_signing_key,
    redact_token,
    sign_token,
    verify_token,
    verify_with_any,
)
from saga_engine.vocabulary import Direction

KEY = b"k" * 32
STEPS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,63}", fullmatch=True)
REFS = st.builds(
    CommandRef, st.uuids(), STEPS, st.sampled_from(list(Direction)), st.integers(1, 2**31)
)
REF = CommandRef(UUID(int=1), "reserve", Direction.ACTION, 1)


@given(REFS)
def test_token_is_read_back_and_fits_a_correlation_id(ref):
    token = sign_token(KEY, ref)
    assert len(token.encode()) <= 140
    assert verify_token(KEY, token) == ref


@given(st.text(max_size=300))
def test_forged_token_is_nobody_s(token):
    assert verify_token(KEY, token) is None


@given(REFS, st.integers(0, 139), st.characters())
def test_token_changed_in_one_character_is_nobody_s(ref, place, character):
    token = sign_token(KEY, ref)
    assume(place < len(token) and token[place] != character)
    assert verify_token(KEY, token[:place] + character + token[place + 1 :]) is None


def test_digest_of_one_command_does_not_vouch_for_another():
    other = CommandRef(REF.run_id, REF.step, REF.direction, 2)
    digest = sign_token(KEY, REF).partition(".")[0]
    assert verify_token(KEY, f"{digest}.{sign_token(KEY, other).partition('.')[2]}") is None


def test_token_of_another_engine_is_nobody_s():
    assert verify_token(new_signing_key(), sign_token(new_signing_key(), REF)) is None


def test_what_is_shown_of_a_token_lets_nobody_answer():
    token = sign_token(KEY, REF)
    assert token.endswith(f".{redact_token(token)}")
    assert str(REF.run_id.hex) in redact_token(token)
    assert verify_token(KEY, redact_token(token)) is None


@pytest.mark.parametrize("text", ["", "x", "my.own.id", "." * 30, "ä" * 22 + ".x", "é.a.1.b"])
def test_what_is_no_token_is_shown_as_it_is(text):
    assert redact_token(text) == text


def test_a_token_is_read_with_any_key_that_is_accepted():
    old, new = new_signing_key(), new_signing_key()
    token = sign_token(old, REF)
    assert verify_with_any((new, old), token) == REF
    assert verify_with_any((new,), token) is None
    assert verify_with_any((), token) is None
