"""Download the programs of peers: `python -m benchmarks.peers --install`."""

import argparse

from benchmarks.peers.installation import INSTALL_COMMAND, install, restate_installation


def main() -> None:
    """Install, or print whether the peers are installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--install", action="store_true", help="download what is missing")
    if parser.parse_args().install:
        print(f"Restate is in {install().directory}.")
    elif restate_installation().is_complete:
        print(f"Restate is in {restate_installation().directory}.")
    else:
        print(f"Restate is not installed. Run `{INSTALL_COMMAND}`.")


if __name__ == "__main__":
    main()
