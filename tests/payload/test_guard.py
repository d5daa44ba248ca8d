"""docs/semantics.md, 7: the author's code may raise anything, and only its own run hears of it."""

import asyncio
import sys
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import EncryptionError, PayloadEncryption
from saga_engine.payload.guard import TimeLimitExceeded, UserCodeCall, UserCodeError, call_user_code
from saga_engine.payload.ports import PayloadPorts
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import ACTION, NOON, DeciderScenario

CARD = "4111111111111111"


class Hostile(Exception):
    """An exception whose texts cannot be made."""

    def __str__(self) -> str:
        raise SystemExit(CARD)

    __repr__ = __str__


class Liar(type):
    """A class that raises when it is asked for its name or module."""

    def __getattribute__(cls, name: str) -> object:
        if name in ("__name__", "__module__", "__qualname__"):
            raise SystemExit(CARD)
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Liar):
    """An exception of such a class."""

    def __getattribute__(self, name: str) -> object:
        raise SystemExit(CARD)


LONG = type("X" * 10_000, (Exception,), {})
ODD = type("line\nend", (Exception,), {})
FALSE = type("ValidationError", (Exception,), {"errors": lambda *_, **__: 1 / 0})


def recurse() -> None:
    recurse()


def leave() -> None:
    sys.exit(CARD)


def raising(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


ANYTHING = {
    "SystemExit": leave,
    "RecursionError": recurse,
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "CancelledError": raising(asyncio.CancelledError()),
    "MemoryError": raising(MemoryError()),
    "BaseException": raising(BaseException(CARD)),
    "BaseExceptionGroup": raising(BaseExceptionGroup(CARD, [SystemExit()])),
    "Hostile": raising(Hostile()),
    "Nameless": raising(Nameless()),
    "line?end": raising(ODD()),
    "X" * 100: raising(LONG()),
    "ValidationError": raising(FALSE()),
}
ODD_NAME = {"line?end": "line", "Nameless": "SystemExit"}
"""What is said of them where pydantic's or the payload's own code asks them for their name."""
anything = pytest.mark.parametrize(("name", "do"), ANYTHING.items(), ids=list(ANYTHING))


class Model(BaseModel):
    """A model whose validator does what the test says."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    step: str = ""

    @field_validator("step")
    @classmethod
    def done(cls, step: str) -> str:
        DOES.get(step, lambda: None)()
        return step


DOES: dict[str, Callable[[], object]] = {}


def shop(mapping: Callable[[], object] = lambda: None) -> Saga:
    """Three steps; the mapping of `charge` calls *mapping*."""
    saga = Saga("shop", version=1, input=Model)

    @saga.step(command="stock.reserve", reply=Model, read_only=True)
    def reserve(order: Model) -> dict:
        return {}

    @saga.step(command="card.charge", read_only=True)
    def charge(order: Model) -> dict:
        mapping()
        return {}

    return saga


@anything
def test_whatever_a_mapping_raises_its_run_gets_an_incident_that_names_class_and_place(name, do):
    story = DeciderScenario(shop(do), {})
    story.succeeds("reserve", {})
    assert (story.incident.step, story.incident.cause) == ("charge", "mapping_failed")
    assert f" raised {name} at " in story.incident.message
    assert story.incident.message.count("test_guard.py:") == 2
    assert CARD not in story.incident.message
    [failure] = story.last_decision.code_errors
    assert failure.call == UserCodeCall(
        "shop",
        story.run.run_id,
        "charge",
        ACTION,
        "card.charge",
        "charge",
        failure.call.source_location,
    )


@anything
def test_whatever_the_validator_of_an_input_raises_the_start_is_refused(monkeypatch, name, do):
    monkeypatch.setitem(DOES, "input", do)
    decision = decide(shop(), None, Start("r", None, {"step": "input"}), NOON)
    assert decision.run is None
    assert decision.refusal is not None
    assert decision.refusal.startswith("The input cannot be read")
    assert ODD_NAME.get(name, name) in decision.refusal
    assert CARD not in decision.refusal
    assert len(decision.refusal) <= 500


@anything
def test_whatever_the_validator_of_a_reply_raises_its_run_gets_an_incident(monkeypatch, name, do):
    monkeypatch.setitem(DOES, "reply", do)
    story = DeciderScenario(shop(), {})
    story.succeeds("reserve", {"step": "reply"})
    assert (story.incident.step, story.incident.cause) == ("reserve", "reply_invalid")
    assert story.incident.message.startswith("The reply cannot be read")
    assert ODD_NAME.get(name, name) in story.incident.message
    assert CARD not in story.incident.message


def test_a_result_given_by_an_operator_is_refused_when_its_validator_exits(monkeypatch):
    story = DeciderScenario(shop(), {})
    story.malformed_reply("reserve")
    monkeypatch.setitem(DOES, "result", leave)
    refused = story.resolves("complete", result={"step": "result"})
    assert refused.refusal is not None
    assert refused.refusal.startswith("The result cannot be read: Model raised SystemExit at ")
    assert story.run.incidents


def test_a_validation_error_in_a_mapping_names_the_place_and_the_rule_and_no_value():
    class Card(BaseModel):
        number: int

    story = DeciderScenario(shop(lambda: Card(number=f"no {CARD}")), {})
    story.succeeds("reserve", {})
    assert story.incident.message.endswith(" (number: int_parsing).")
    assert CARD not in story.incident.message
    assert "test_guard.py:" in story.incident.message


def test_with_a_codec_not_even_the_place_in_a_payload_is_named():
    class Cards(BaseModel):
        numbers: dict[str, int]

    def many() -> Cards:
        return Cards(numbers=dict.fromkeys([CARD, "a", "b", "c"], "x"))

    story = DeciderScenario(shop(many), {})
    story.succeeds("reserve", {})
    assert story.incident.message.endswith("and more).")
    sealed = DeciderScenario(shop(many), {})
    sealed.encryption = PayloadEncryption(Plain())
    sealed.succeeds("reserve", {})
    assert " raised ValidationError at " in sealed.incident.message
    assert CARD not in sealed.incident.message


class Plain:
    """A codec that seals nothing."""

    def encrypt(self, *_: object) -> None:
        return None

    def decrypt(self, *_: object) -> bytes:
        raise SystemExit(CARD)


def test_a_codec_that_exits_is_a_payload_that_cannot_be_unsealed():
    with pytest.raises(EncryptionError, match=r"^cannot be decrypted: SystemExit$"):
        PayloadEncryption(Plain()).decrypt({"$encrypted": "x"}, ("input", "shop", "r"))


class Impatient:
    """A watch that interrupts or refuses."""

    def __init__(self, *, refuse: bool) -> None:
        self.refuse = refuse
        self.calls: list[str] = []

    def enter(self, call: UserCodeCall) -> None:
        self.calls.append(call.function)
        if self.refuse:
            raise UserCodeError(call, "is not called")

    def leave(self) -> None:
        self.calls.append("left")


def late() -> None:
    raise TimeLimitExceeded(2.0)


def test_a_mapping_that_is_interrupted_opens_an_incident_that_says_so():
    watch = Impatient(refuse=False)
    story = DeciderScenario(shop(late), {})
    started = decide(story.saga, None, Start("r", None, {}), NOON, PayloadPorts(time_limit=watch))
    assert watch.calls == ["Model", "left", "reserve", "left"]
    assert started.code_errors == ()
    story.succeeds("reserve", {})
    assert " did not return within 2 s and was interrupted at " in story.incident.message


def test_a_call_that_is_refused_is_not_made():
    decision = decide(
        shop(leave),
        None,
        Start("r", None, {}),
        NOON,
        PayloadPorts(time_limit=Impatient(refuse=True)),
    )
    assert decision.refusal == "The input cannot be read: Model is not called."


def test_a_call_that_is_left_is_left_even_when_it_raises():
    watch = Impatient(refuse=False)
    call = UserCodeCall("shop", "r", "", None, "", "f", "nowhere:1")
    with pytest.raises(
        UserCodeError, match=r"^nowhere:1 raised SystemExit at .*test_guard.py:\d+$"
    ):
        call_user_code(watch, call, leave)
    assert watch.calls == ["f", "left"]
    with pytest.raises(UserCodeError, match=r"^nowhere:1 raised TypeError$"):
        call_user_code(watch, call, int, [])


def test_the_run_goes_on_once_the_mapping_is_corrected():
    broken = [leave]
    story = DeciderScenario(shop(lambda: broken and broken[0]()), {})
    story.succeeds("reserve", {})
    broken.clear()
    story.resolves("retry")
    assert story.sent_commands == ["card.charge#1"]
    assert story.status is Status.RUNNING
