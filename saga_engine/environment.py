"""
What of the process environment is a setting of ours, and what others have put there.

Kubernetes adds variables for each Service of the namespace, and Docker for each link (Kubernetes
documentation, "Service", "Environment variables"). Those of a Service named `saga-engine...` begin
with our prefix. They are not settings, and not typos of settings either.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches

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
"""What `<SERVICE>_PORT` holds; a port that a person sets is a number."""
_DOCKER_LINK_NAME = re.compile(r"/\S+/\S+")
"""What Docker's `<ALIAS>_NAME` holds."""


def is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes or Docker added a variable for a Service or a link."""
    if name.endswith("_PORT") and _INJECTED_VALUE.fullmatch(value):
        return True
    if name.endswith("_NAME") and _DOCKER_LINK_NAME.fullmatch(value):
        return True
    return _INJECTED_NAME.fullmatch(name) is not None


def settings_from(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings among the variables, by their names in lower case without the prefix."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not is_injected(name.upper(), value)
    }


def find_unknown_setting(environment: Mapping[str, str], known: set[str]) -> tuple[str, str] | None:
    """The first variable with our prefix that is neither a setting nor injected, and a guess."""
    names = {PREFIX + name.upper() for name in known}
    for name in sorted(environment):
        if (
            name.startswith(PREFIX)
            and name not in names
            and not is_injected(name, environment[name])
        ):
            return name, next(iter(get_close_matches(name, names, n=1)), "")
    return None
