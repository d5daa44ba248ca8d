"""docs/semantics.md, 7: the author's code may raise anything, and only its own run is affected."""

import asyncio
import sys
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.payload.encryption import EncryptionError, PayloadEncryption
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    TimeLimitExceeded,
    UserCodeCall,
    UserCodeError,
    call_user_code,
)
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
"""How they are named where pydantic's or the payload's own code asks for their name."""
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
def test_any_exception_of_a_mapping_opens_an_incident_with_class_and_line(name, do):
    scenario = DeciderScenario(shop(do), {})
    scenario.succeeds("reserve", {})
    assert (scenario.incident.step, scenario.incident.cause) == ("charge", "mapping_failed")
    assert f" raised {name} at " in scenario.incident.message
    assert scenario.incident.message.count("test_guard.py:") == 2
    assert CARD not in scenario.incident.message
    [failure] = scenario.last_decision.code_errors
    assert failure.call == UserCodeCall(
        "shop",
        scenario.run.run_id,
        "charge",
        ACTION,
        "card.charge",
        "charge",
        failure.call.source_location,
    )


@anything
def test_any_exception_of_an_input_validator_refuses_the_start(monkeypatch, name, do):
    monkeypatch.setitem(DOES, "input", do)
    decision = decide(shop(), None, Start("r", None, {"step": "input"}), NOON)
    assert decision.run is None
    assert decision.refusal is not None
    assert decision.refusal.startswith("The input cannot be read")
    assert ODD_NAME.get(name, name) in decision.refusal
    assert CARD not in decision.refusal
    assert len(decision.refusal) <= 500


@anything
def test_any_exception_of_a_reply_validator_opens_an_incident(monkeypatch, name, do):
    monkeypatch.setitem(DOES, "reply", do)
    scenario = DeciderScenario(shop(), {})
    scenario.succeeds("reserve", {"step": "reply"})
    assert (scenario.incident.step, scenario.incident.cause) == ("reserve", "reply_invalid")
    assert scenario.incident.message.startswith("The reply cannot be read")
    assert ODD_NAME.get(name, name) in scenario.incident.message
    assert CARD not in scenario.incident.message


def test_a_result_of_an_operator_is_refused_when_its_validator_exits(monkeypatch):
    scenario = DeciderScenario(shop(), {})
    scenario.malformed_reply("reserve")
    monkeypatch.setitem(DOES, "result", leave)
    refused = scenario.resolves("complete", result={"step": "result"})
    assert refused.refusal is not None
    assert refused.refusal.startswith("The result cannot be read: Model raised SystemExit at ")
    assert scenario.run.incidents


def test_a_validation_error_names_the_path_and_the_rule_but_no_value():
    class Card(BaseModel):
        number: int

    scenario = DeciderScenario(shop(lambda: Card(number=f"no {CARD}")), {})
    scenario.succeeds("reserve", {})
    assert scenario.incident.message.endswith(" (number: int_parsing).")
    assert CARD not in scenario.incident.message
    assert "test_guard.py:" in scenario.incident.message


def test_with_a_codec_a_validation_error_names_no_path():
    class Cards(BaseModel):
        numbers: dict[str, int]

    def many() -> Cards:
        return Cards(numbers=dict.fromkeys([CARD, "a", "b", "c"], "x"))

    scenario = DeciderScenario(shop(many), {})
    scenario.succeeds("reserve", {})
    assert scenario.incident.message.endswith("and more).")
    encrypted = DeciderScenario(shop(many), {})
    encrypted.encryption = PayloadEncryption(Plain())
    encrypted.succeeds("reserve", {})
    assert " raised ValidationError at " in encrypted.incident.message
    assert CARD not in encrypted.incident.message


class Plain:
    """A codec that leaves everything in clear."""

    def encrypt(self, *_: object) -> None:
        return None

    def decrypt(self, *_: object) -> bytes:
        raise SystemExit(CARD)


def test_a_codec_that_exits_is_an_encryption_error():
    with pytest.raises(EncryptionError, match=r"^cannot be decrypted: SystemExit$"):
        PayloadEncryption(Plain()).decrypt({"$encrypted": "x"}, ("input", "shop", "r"))


class Impatient:
    """A time limit that interrupts or refuses."""

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


def test_an_interrupted_mapping_opens_an_incident():
    time_limit = Impatient(refuse=False)
    scenario = DeciderScenario(shop(late), {})
    started = decide(
        scenario.saga, None, Start("r", None, {}), NOON, PayloadPorts(time_limit=time_limit)
    )
    assert time_limit.calls == ["Model", "left", "reserve", "left"]
    assert started.code_errors == ()
    scenario.succeeds("reserve", {})
    assert " did not return within 2 s and was interrupted at " in scenario.incident.message


def test_a_call_that_is_refused_is_not_made():
    decision = decide(
        shop(leave),
        None,
        Start("r", None, {}),
        NOON,
        PayloadPorts(time_limit=Impatient(refuse=True)),
    )
    assert decision.refusal == "The input cannot be read: Model is not called."


def test_the_time_limit_ends_when_the_call_raises():
    time_limit = Impatient(refuse=False)
    call = UserCodeCall("shop", "r", "", None, "", "f", "nowhere:1")
    with pytest.raises(
        UserCodeError, match=r"^nowhere:1 raised SystemExit at .*test_guard.py:\d+$"
    ):
        call_user_code(time_limit, call, leave)
    assert time_limit.calls == ["f", "left"]
    with pytest.raises(UserCodeError, match=r"^nowhere:1 raised TypeError$"):
        call_user_code(time_limit, call, int, [])


def test_the_run_goes_on_with_a_fixed_mapping():
    broken = [leave]
    scenario = DeciderScenario(shop(lambda: broken and broken[0]()), {})
    scenario.succeeds("reserve", {})
    broken.clear()
    scenario.resolves("retry")
    assert scenario.sent_commands == ["card.charge#1"]
    assert scenario.status is Status.RUNNING


def test_the_reference_names_a_default_without_a_time_limit():
    assert repr(NO_TIME_LIMIT) == "NO_TIME_LIMIT"
