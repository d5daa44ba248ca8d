"""A module that does not import is the user's to correct, and the error says where."""

import signal
from collections.abc import Iterator

import pytest

from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load_objects
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings

LONG = 3600.0
SOON = 0.2


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """Make a module whose import does not return."""
    (tmp_path / "hanging.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "hanging"


@pytest.fixture
def callers() -> Iterator[list[int]]:
    """Have a handler of SIGALRM that the caller has set; what it heard."""
    heard: list[int] = []
    rest = signal.setitimer(signal.ITIMER_REAL, 0)  # of the time limit of this test
    before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *rest)


def test_a_module_that_exits_while_it_is_imported_does_not_end_the_command(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("\nraise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"does not import: SystemExit: 3 .*leaving.py:2"):
        load_objects("leaving", Saga, LONG)


def test_the_module_of_a_codec_is_interrupted_too(hanging):
    settings = Settings(payload_codec=f"{hanging}:codec", import_timeout=SOON)
    with pytest.raises(ConfigurationError, match=r"'hanging' does not import: .* within 0\.2 s"):
        encryption_from(settings)


def test_a_load_restores_the_timer_and_the_handler_of_its_caller(hanging, callers):
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, LONG, 7.0)
    with pytest.raises(ConfigurationError):
        load_objects(hanging, Saga, SOON)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 0 < left <= LONG - SOON  # the load took that long, and the timer went on
    assert interval == 7.0
    assert callers == []


def test_a_timer_that_ran_out_during_a_load_rings_after_it(hanging, callers):
    signal.setitimer(signal.ITIMER_REAL, SOON / 2)
    with pytest.raises(ConfigurationError):
        load_objects(hanging, Saga, SOON)
    for _ in range(6000):
        if callers:
            break
        signal.sigtimedwait([], 0.01)
    assert callers == [signal.SIGALRM]
