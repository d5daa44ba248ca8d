"""Peers are downloaded by hand, in fixed versions, and used only if they are those."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.peers import installation

FILES = Path(installation.__file__).parent


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation with empty programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = installation.restate_installation()
    for program in (found.server, found.node):
        program.parent.mkdir(parents=True)
        program.touch()
    for name in ("package.json", "package-lock.json", "place_order.mjs"):
        shutil.copyfile(FILES / name, found.directory / name)
    return found


def test_an_installation_of_this_checkout_is_used(installed):
    assert installed.is_complete


@pytest.mark.parametrize("name", ["package-lock.json", "place_order.mjs"])
def test_an_installation_of_other_versions_or_handlers_is_not_used(installed, name):
    (installed.directory / name).write_text("other")
    assert not installed.is_complete


def test_an_installation_without_its_server_is_not_used(installed):
    installed.server.unlink()
    assert not installed.is_complete


def test_the_versions_are_fixed():
    versions = json.loads((FILES / "package.json").read_text())["dependencies"].values()
    assert all(each.replace(".", "").isdigit() for each in versions)
