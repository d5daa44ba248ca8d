"""The command line: what `saga-engine` does, one module for each group of commands."""
