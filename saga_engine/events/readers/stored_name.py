"""Names of projections and feeds, under which their positions are stored."""

import re

STORED_NAME_RULE = "Use a to z, 0 to 9, - and _, at most 64 characters, the first one a letter."

_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def is_stored_name(name: object) -> bool:
    """Whether a projection or a feed can have that name; see STORED_NAME_RULE."""
    return isinstance(name, str) and _PATTERN.fullmatch(name) is not None
