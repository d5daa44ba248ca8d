"""A module that does not import is the user's to mend, and the error says where."""

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.loading import load
from saga_engine.saga.definition import Saga


def test_a_module_that_exits_while_it_is_imported_does_not_end_the_command(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("\nraise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"does not import: SystemExit: 3 .*leaving.py:2"):
        load("leaving", Saga)
