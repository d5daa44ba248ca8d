"""
Which environment variables are settings, and which ones Kubernetes or Docker has added.

Kubernetes adds variables for each Service of the namespace, and Docker for each link (Kubernetes
documentation, "Service", "Environment variables"). Those of a Service named `saga-engine...` begin
with the prefix of the settings, but are neither settings nor misspelled settings.
"""

import re
from collections.abc import Mapping

from saga_engine.nearest_name import nearest_name

PREFIX = "SAGA_ENGINE_"

_PROTOCOLS = "TCP|UDP|SCTP"
_INJECTED_NAME = re.compile(
    rf"""
    \w+_SERVICE_HOST | \w+_SERVICE_PORT(_\w+)?                # Kubernetes
    | \w+_PORT_\d+_({_PROTOCOLS})(_(PROTO|PORT|ADDR))?        # both
    | \w+_ENV_\w+                                             # Docker: the linked container's own
    """,
    re.VERBOSE,
)
_INJECTED_VALUE = re.compile(rf"(?i:{_PROTOCOLS})://\S+:\d+")
"""The value of `<SERVICE>_PORT`; a port that a person sets is a number."""
_DOCKER_LINK_NAME = re.compile(r"/\S+/\S+")
"""The value of Docker's `<ALIAS>_NAME`."""


def is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes or Docker added a variable for a Service or a link."""
    if name.endswith("_PORT") and _INJECTED_VALUE.fullmatch(value):
        return True
    if name.endswith("_NAME") and _DOCKER_LINK_NAME.fullmatch(value):
        return True
    return _INJECTED_NAME.fullmatch(name) is not None


def settings_from(environment: Mapping[str, str]) -> dict[str, str]:
    """Select the settings, by their names in lower case without the prefix."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not is_injected(name.upper(), value)
    }


def find_unknown_setting(environment: Mapping[str, str], known: set[str]) -> tuple[str, str] | None:
    """Find a variable that has the prefix but is not a setting or injected, and a similar name."""
    names = {PREFIX + name.upper() for name in known}
    for name in sorted(environment):
        if (
            name.startswith(PREFIX)
            and name not in names
            and not is_injected(name, environment[name])
        ):
            return name, nearest_name(name, names)
    return None
