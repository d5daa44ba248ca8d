"""The programs of PostgreSQL are found, or copied, or their installation is explained."""

import asyncio

import pytest

from saga_engine.embedded import programs
from saga_engine.errors import ConfigurationError


async def test_inaccessible_programs_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_CACHE_DIRECTORY", tmp_path / "cache")
    installation = programs._wheel_installation()
    assert installation
    copied = programs._copy_to_cache(installation)
    assert programs._copy_to_cache(installation) == copied
    version = await asyncio.create_subprocess_exec(
        copied / "bin" / "postgres", "--version", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await version.communicate()
    assert said.startswith(b"postgres (PostgreSQL) 1")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [copied.parents[1].name]


def test_without_postgresql_the_error_has_the_command_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_WHEEL_PACKAGE", "no_such_wheel")
    monkeypatch.setattr(programs, "_DEBIAN_ROOT", tmp_path)
    with pytest.raises(ConfigurationError, match="pip install"):
        programs.postgres_bin_directory(None)
