"""The options of the commands that run until they are stopped, and the settings they change."""

from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.settings import Settings

Port = Annotated[
    int | None, Parameter(help="Port of /livez, /readyz and /metrics; 0 chooses a free one.")
]
Host = Annotated[str | None, Parameter(help="Address that this port is bound to.")]


def load_settings(port: int | None, host: str | None) -> Settings:
    """Read the settings; *port* and *host*, if they are given, take precedence."""
    overrides: dict[str, Any] = {"http_port": port, "http_host": host}
    return Settings.load(**{name: value for name, value in overrides.items() if value is not None})
