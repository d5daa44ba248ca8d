from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saga_engine.protocol.token import CommandRef, mint, new_key, read, read_any, shown
from saga_engine.vocabulary import Direction

KEY = b"k" * 32
STEPS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,63}", fullmatch=True)
REFS = st.builds(
    CommandRef, st.uuids(), STEPS, st.sampled_from(list(Direction)), st.integers(1, 2**31)
)
REF = CommandRef(UUID(int=1), "reserve", Direction.ACTION, 1)


@given(REFS)
def test_token_is_read_back_and_fits_a_correlation_id(ref):
    token = mint(KEY, ref)
    assert len(token.encode()) <= 140
    assert read(KEY, token) == ref


@given(st.text(max_size=300))
def test_forged_token_is_nobody_s(token):
    assert read(KEY, token) is None


@given(REFS, st.integers(0, 139), st.characters())
def test_token_changed_in_one_character_is_nobody_s(ref, place, character):
    token = mint(KEY, ref)
    assume(place < len(token) and token[place] != character)
    assert read(KEY, token[:place] + character + token[place + 1 :]) is None


def test_digest_of_one_command_does_not_vouch_for_another():
    other = CommandRef(REF.run_id, REF.step, REF.direction, 2)
    digest = mint(KEY, REF).partition(".")[0]
    assert read(KEY, f"{digest}.{mint(KEY, other).partition('.')[2]}") is None


def test_token_of_another_engine_is_nobody_s():
    assert read(new_key(), mint(new_key(), REF)) is None


def test_what_is_shown_of_a_token_lets_nobody_answer():
    token = mint(KEY, REF)
    assert token.endswith(f".{shown(token)}")
    assert str(REF.run_id.hex) in shown(token)
    assert read(KEY, shown(token)) is None


@pytest.mark.parametrize("text", ["", "x", "my.own.id", "." * 30, "ä" * 22 + ".x", "é.a.1.b"])
def test_what_is_no_token_is_shown_as_it_is(text):
    assert shown(text) == text


def test_a_token_is_read_with_any_key_that_is_accepted():
    old, new = new_key(), new_key()
    token = mint(old, REF)
    assert read_any((new, old), token) == REF
    assert read_any((new,), token) is None
    assert read_any((), token) is None
