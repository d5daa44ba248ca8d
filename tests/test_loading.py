"""A module that cannot be imported is an error that names the file and line to correct."""

import signal
from collections.abc import Iterator

import pytest

from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load_objects
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from tests.kit.alarms import handled_alarms, wait_for_alarm

LONG = 3600.0
SOON = 0.2


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """Create a module whose import does not return."""
    (tmp_path / "hanging.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "hanging"


@pytest.fixture
def received_alarms() -> Iterator[list[int]]:
    """Set a SIGALRM handler as a caller would; yield the signals it received."""
    with handled_alarms() as received:
        yield received


def test_a_module_that_exits_during_its_import_does_not_end_the_command(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("\nraise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"does not import: SystemExit: 3 .*leaving.py:2"):
        load_objects("leaving", Saga, LONG)


def test_the_import_of_a_codec_is_interrupted_too(hanging):
    settings = Settings(payload_codec=f"{hanging}:codec", import_timeout=SOON)
    with pytest.raises(ConfigurationError, match=r"'hanging' does not import: .* within 0\.2 s"):
        encryption_from(settings)


def test_a_load_restores_the_timer_and_the_handler_of_its_caller(hanging, received_alarms):
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, LONG, 7.0)
    with pytest.raises(ConfigurationError):
        load_objects(hanging, Saga, SOON)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 0 < left <= LONG - SOON  # the timer went on during the load
    assert interval == 7.0
    assert received_alarms == []


def test_a_timer_that_expires_during_a_load_fires_after_it(hanging, received_alarms):
    signal.setitimer(signal.ITIMER_REAL, SOON / 2)
    with pytest.raises(ConfigurationError):
        load_objects(hanging, Saga, SOON)
    wait_for_alarm(received_alarms)
    assert received_alarms == [signal.SIGALRM]
