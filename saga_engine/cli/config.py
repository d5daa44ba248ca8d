"""`saga-engine config show`: every setting with its value, source and meaning."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from cyclopts import App
from pydantic import SecretStr

from saga_engine.cli.output import AsJson, print_json, print_table
from saga_engine.environment import PREFIX, settings_from
from saga_engine.settings import Settings

app = App(name="config", help="Show the settings and their sources.", version_flags=())


@app.command
def show(*, as_json: AsJson = False) -> None:
    """Show every setting with its value and its source; passwords are masked."""
    settings = Settings.load()
    rows = [_row(name, settings) for name in Settings.model_fields]
    if as_json:
        print_json({"settings": rows})
        return
    print_table(
        ("setting", "value", "source", "meaning"),
        [(row["name"], row["value"], row["source"], row["meaning"]) for row in rows],
        empty="",
    )


def _row(name: str, settings: Settings) -> dict[str, Any]:
    value = getattr(settings, name)
    variable = PREFIX + name.upper()
    return {
        "name": variable,
        "value": _display_value(value),
        "source": "environment" if name in settings_from(os.environ) else "default",
        "meaning": Settings.model_fields[name].description,
    }


def _display_value(value: object) -> object:
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value())
    return json.dumps(value) if isinstance(value, Mapping) else value


def mask_url(url: str) -> str:
    """
    Mask the password and the query of a URL; a query may contain a password too.

    A secret that is not a URL is masked completely. The URL is not parsed, because parsers disagree
    about where a password ends that contains characters it should not.
    """
    scheme, divider, rest = url.partition("://")
    if not divider:
        return "***"
    credentials, at_sign, address = rest.rpartition("@")
    user_name = re.split("[:/?#]", credentials, maxsplit=1)[0]
    password = ":***" if user_name != credentials else ""
    host_and_path, query, _ = address.partition("#")[0].partition("?")
    return f"{scheme}://{user_name}{password}{at_sign}{host_and_path}{query and '?***'}"
