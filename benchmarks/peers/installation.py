"""The programs of peers: where they are in the cache, and how they get there."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

INSTALL_COMMAND = "python -m benchmarks.peers --install"
_PACKAGE_FILES = ("package.json", "package-lock.json", "place_order.mjs")
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class RestateInstallation:
    """The programs of Restate, and the directory with its handlers."""

    directory: Path

    @property
    def server(self) -> Path:
        """The server."""
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        package = f"@restatedev/restate-server-linux-{architecture}"
        return self.directory / "node_modules" / package / "bin" / "restate-server"

    @property
    def node(self) -> Path:
        """The Node.js of the handlers; that of the machine may be too old."""
        return self.directory / "node_modules" / "node" / "bin" / "node"

    @property
    def handlers(self) -> Path:
        """The module with the handlers."""
        return self.directory / "place_order.mjs"

    @property
    def is_complete(self) -> bool:
        """Whether all of it is there, and the handlers are those of this checkout."""
        own = Path(__file__).parent
        programs = self.server.exists() and self.node.exists()
        return programs and all(
            (self.directory / name).exists()
            and (self.directory / name).read_bytes() == (own / name).read_bytes()
            for name in _PACKAGE_FILES
        )


def restate_installation() -> RestateInstallation:
    """Return where Restate is, whether it is installed or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return RestateInstallation(Path(cache, "saga-engine", "peers"))


def install() -> RestateInstallation:
    """
    Download Restate's server, its SDK and Node.js from npm's registry, in their locked versions.

    Raises:
        SystemExit: npm is missing, or it failed.
    """
    installation = restate_installation()
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed. Run `apt-get install npm`.")
    installation.directory.mkdir(parents=True, exist_ok=True)
    for name in _PACKAGE_FILES:
        shutil.copyfile(Path(__file__).with_name(name), installation.directory / name)
    completed = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=installation.directory,
        env={**os.environ, "SCARF_ANALYTICS": "false"},  # a package reports installations
        check=False,
    )
    if completed.returncode or not installation.is_complete:
        raise SystemExit(f"npm could not install into {installation.directory}.")
    return installation
