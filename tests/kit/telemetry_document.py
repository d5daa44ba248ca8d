"""The sections of the page about telemetry, and its alerting rules."""

from pathlib import Path

DOCUMENT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


def section(title: str) -> str:
    """The text of a section."""
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def alerting_rules() -> str:
    """The rules as Prometheus reads them."""
    return section("Alerts").split("```yaml\n")[1].split("```")[0]
