"""`saga-engine config show`: every setting, what it is, and where that comes from."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from cyclopts import App
from pydantic import SecretStr

from saga_engine.cli.output import AsJson, document, table
from saga_engine.environment import PREFIX, settings_in
from saga_engine.settings import Settings

app = App(name="config", help="Show the settings and where each comes from.")


@app.command
def show(*, as_json: AsJson = False) -> None:
    """Show every setting with its value and its source; passwords are masked."""
    settings = Settings.load()
    rows = [_row(name, settings) for name in Settings.model_fields]
    if as_json:
        document({"settings": rows})
        return
    table(
        ("setting", "value", "source", "meaning"),
        [(row["name"], row["value"], row["source"], row["meaning"]) for row in rows],
        empty="",
    )


def _row(name: str, settings: Settings) -> dict[str, Any]:
    value = getattr(settings, name)
    variable = PREFIX + name.upper()
    return {
        "name": variable,
        "value": _shown(value),
        "source": "environment" if name in settings_in(os.environ) else "default",
        "meaning": Settings.model_fields[name].description,
    }


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return masked(value.get_secret_value())
    return json.dumps(value) if isinstance(value, Mapping) else value


def masked(url: str) -> str:
    """
    Show of a URL what is no secret: not the password, and not the query, which may hold one.

    A secret that is no URL is not shown at all. Not parsed, because what a password must not hold
    is what makes parsers disagree about where it ends.
    """
    scheme, divider, rest = url.partition("://")
    if not divider:
        return "***"
    credentials, at, address = rest.rpartition("@")
    name = re.split("[:/?#]", credentials, maxsplit=1)[0]
    password = ":***" if name != credentials else ""
    place, query, _ = address.partition("#")[0].partition("?")
    return f"{scheme}://{name}{password}{at}{place}{query and '?***'}"
