"""`python -m saga_engine` is `saga-engine`, for where the script is not on the path."""

from saga_engine.cli.main import main

main()
