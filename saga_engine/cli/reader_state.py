"""The state of a projection or a feed, and whether a process runs it, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from saga_engine.cli.output import print_stderr
from saga_engine.events.projections.projection_key import ENGINE_PREFIX

_NOT_FOLLOWING = frozenset({"paused", "stopped"})
"""States in which no process has anything to do."""


def state_text(document: Mapping[str, Any]) -> str:
    """Return the state in the document of a projection or a feed, for a table."""
    state: str = document["state"]
    return f"{state} (no process)" if _lacks_process(document) else state


def print_not_running(documents: Sequence[Mapping[str, Any]]) -> None:
    """Print to stderr which projections or feeds no process runs, and what would run them."""
    lacking = [each for each in documents if _lacks_process(each)]
    own = [_label(each) for each in lacking if each["name"].startswith(ENGINE_PREFIX)]
    declared = [_label(each) for each in lacking if not each["name"].startswith(ENGINE_PREFIX)]
    for labels, command in ((declared, "projector MODULE"), (own, "worker --events MODULE")):
        if labels:
            listed = ", ".join(dict.fromkeys(labels))  # a feed has a document for each sink
            print_stderr(f"No process runs {listed}: start `saga-engine {command}`.")


def _label(document: Mapping[str, Any]) -> str:
    is_live = document.get("role", "live") == "live"
    name: str = document["name"]
    if is_live:
        return name
    return f"{name} --version {document['version']} (code version {document['code_version']})"


def _lacks_process(document: Mapping[str, Any]) -> bool:
    return document["state"] not in _NOT_FOLLOWING and not document["running"]
