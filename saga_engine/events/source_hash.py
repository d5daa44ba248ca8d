"""The source of a module as a hash, taken while the module is imported."""

import hashlib
import linecache
import sys


def source_hash(module_name: str) -> str | None:
    """
    Hash the source of a loaded module; None if it has none, as in an interactive session.

    Called later, it could read the next version of the file, which this process does not run.
    """
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    linecache.checkcache(file)  # it may have been read before a reload
    lines = linecache.getlines(file, vars(module))
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
