"""Figures that a test prints."""


def print_table(title, figures):
    """Print figures; visible with pytest -s."""
    width = max(map(len, figures))
    lines = [f"  {name:{width}}  {value:>10}" for name, value in figures.items()]
    print("\n".join(["", title, *lines]), flush=True)  # noqa: T201 - the figures
