from uuid import UUID

import pytest
from hypothesis import assume, example, given
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
    CommandRef, st.uuids().map(str), STEPS, st.sampled_from(list(Direction)), st.integers(1, 2**31)
)
REF = CommandRef(str(UUID(int=1)), "reserve", Direction.ACTION, 1)


@given(REFS)
def test_token_is_verified_and_fits_a_correlation_id(ref):
    token = sign_token(KEY, ref)
    assert len(token.encode()) <= 140
    assert verify_token(KEY, token) == ref


@given(st.text(max_size=300))
@example("\ud800.x")
@example("x.\ud800")
def test_forged_token_is_refused(token):
    assert verify_token(KEY, token) is None


@given(REFS, st.integers(0, 139), st.characters())
def test_token_with_one_changed_character_is_refused(ref, place, character):
    token = sign_token(KEY, ref)
    assume(place < len(token) and token[place] != character)
    assert verify_token(KEY, token[:place] + character + token[place + 1 :]) is None


def test_digest_of_another_command_is_refused():
    other = CommandRef(REF.run_id, REF.step, REF.direction, 2)
    digest = sign_token(KEY, REF).partition(".")[0]
    assert verify_token(KEY, f"{digest}.{sign_token(KEY, other).partition('.')[2]}") is None


def test_token_of_another_engine_is_refused():
    assert verify_token(new_signing_key(), sign_token(new_signing_key(), REF)) is None


def test_redacted_token_cannot_be_used_to_reply():
    token = sign_token(KEY, REF)
    assert token.endswith(f".{redact_token(token)}")
    assert UUID(REF.run_id).hex in redact_token(token)
    assert verify_token(KEY, redact_token(token)) is None


@pytest.mark.parametrize("text", ["", "x", "my.own.id", "." * 30, "ä" * 22 + ".x", "é.a.1.b"])
def test_other_correlation_id_is_not_redacted(text):
    assert redact_token(text) == text


def test_token_is_verified_with_any_accepted_key():
    old, new = new_signing_key(), new_signing_key()
    token = sign_token(old, REF)
    assert verify_with_any((new, old), token) == REF
    assert verify_with_any((new,), token) is None
    assert verify_with_any((), token) is None
