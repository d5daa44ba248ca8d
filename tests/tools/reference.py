"""
Write docs/reference.md: what a user imports and sets, from the code itself.

    make reference

Each public name with its signature, the meaning of each parameter as its docstring has it, and its
methods; then every setting with its unit, default and bounds, and every error with its exit code.
"""

import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import saga_engine
from saga_engine import errors, events
from saga_engine.environment import PREFIX
from saga_engine.saga.definition import Step
from saga_engine.saga.retry import Retry
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference.md"

HEAD = """\
# Reference

Every name that `saga_engine` and `saga_engine.events` export, every setting and every error. This
page is generated from the code by `make reference`; a test compares the two. Durations are
`timedelta` in Python and seconds in settings; sizes are bytes.
"""

_PACKAGES: tuple[Any, ...] = (saga_engine, events)  # their stubs leave out __all__
PUBLIC, PUBLIC_EVENTS = (
    {name: found for name in package.__all__ if callable(found := getattr(package, name))}
    for package in _PACKAGES
)
"""The classes and functions that a user imports from each."""
PUBLIC["Step"] = Step  # `Saga.step` returns it

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w[\w, ]*): (.*)$")


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## What a user imports\n"]
    for name, found in sorted(PUBLIC.items(), key=lambda each: each[0].lower()):
        parts += _public(name, found)
    parts += ["## What a user imports from `saga_engine.events`\n"]
    for name, found in sorted(PUBLIC_EVENTS.items(), key=lambda each: each[0].lower()):
        parts += _public(name, found)
    parts += ["## Settings\n", *_settings()]
    parts += ["## Errors\n", *_errors()]
    return "\n".join(parts).rstrip() + "\n"


def callables() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Each public function and method: its name, itself, and the docstring of its parameters."""
    for name, found in (PUBLIC | PUBLIC_EVENTS).items():
        if not inspect.isclass(found):
            yield name, found, inspect.getdoc(found) or ""
            continue
        if _is_built(found):
            yield name, found, _doc(found)
        for member, function in _methods(found):
            yield f"{name}.{member}", function, inspect.getdoc(function) or ""


def _doc(found: Any) -> str:
    """Its docstring; of an error that says no more of its arguments, also its base's arguments."""
    doc = inspect.getdoc(found) or ""
    if not inspect.isclass(found) or "Args:" in doc:
        return doc
    inherited = _sections(inspect.getdoc(found.__mro__[1]) or "")
    return doc + "".join(
        f"\n\n{title}:\n{body.strip(chr(10))}" for title, body in inherited.items() if title
    )


def meanings(doc: str) -> dict[str, str]:
    """What the section `Args` of a docstring says of each parameter."""
    return _entries(_sections(doc).get("Args", ""))


def _public(name: str, found: Any) -> list[str]:
    doc = _doc(found)
    if not inspect.isclass(found):
        return [f"### `{name}`\n", _code(_signature(name, found)), *_described(found, doc)]
    lines = [f"### `{name}`\n"]
    if _is_built(found):
        lines.append(_code(_signature(name, found)))
    lines += _described(found, doc)
    for member, function in _methods(found):
        title = f"{name}.{member}"
        lines += [f"#### `{title}`\n", _code(_signature(title, function))]
        lines += _described(function, inspect.getdoc(function) or "")
    return lines


def _is_built(found: type) -> bool:
    """Whether a user calls it: not a protocol to implement, and not an error to catch."""
    own = inspect.isfunction(getattr(found, "__init__", None))
    return own and not getattr(found, "_is_protocol", False)


def _methods(found: type) -> list[tuple[str, Any]]:
    members = [
        (name, inspect.unwrap(value))
        for name, value in vars(found).items()
        if not name.startswith("_") and inspect.isfunction(value)
    ]
    return [(name, value) for name, value in members if inspect.getdoc(value)]


def _described(found: Any, doc: str) -> list[str]:
    sections = _sections(doc)
    lines = [_prose(sections.pop("", ""))]
    said = _entries(sections.pop("Args", ""))
    parameters = [each for each in _parameters(found) if said.get(each.name)]
    if parameters:
        lines.append("| parameter | type | default | meaning |\n|---|---|---|---|")
        lines[-1] += "".join(
            f"\n| `{each.name}` | {_cell(_type(each.annotation))} | {_default(each.default)}"
            f" | {said[each.name].replace('|', chr(92) + '|')} |"
            for each in parameters
        )
        lines.append("")
    for title, body in sections.items():
        entries = _entries(body)
        if entries:
            lines.append(f"{title}:\n")
            lines += [f"- `{name}`: {text}" for name, text in entries.items()]
        else:
            lines.append(f"{title}: {' '.join(body.split())}")
        lines.append("")
    return lines


def _parameters(found: Any) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each for each in parameters if each.name != "self"]


def _sections(doc: str) -> dict[str, str]:
    pieces = _SECTION.split(doc)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def _entries(body: str) -> dict[str, str]:
    """`name: text` lines, indented once, whose text may go on in lines indented twice."""
    found: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("        "):
            found[name] += " " + line.strip()
    return found


def _prose(text: str) -> str:
    """Paragraphs on one line each; what is indented is code."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("    "):
            parts.append(_code(textwrap.dedent(paragraph)).rstrip())
        elif paragraph.startswith("- "):
            parts.append(paragraph)
        else:
            parts.append(" ".join(paragraph.split()))
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _signature(name: str, found: Any) -> str:
    parameters = _parameters(found)
    written, keyword = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keyword:
            written.append("*")
            keyword = True
        default = "" if each.default is each.empty else f" = {_shown(each.default)}"
        star = "*" if each.kind is each.VAR_POSITIONAL else ""
        keyword = keyword or bool(star)
        written.append(f"{star}{each.name}: {_type(each.annotation)}{default}")
    returns = ""
    if not inspect.isclass(found):
        annotation = inspect.signature(found).return_annotation
        returns = "" if annotation is inspect.Signature.empty else f" -> {_type(annotation)}"
    prefix = "async " if inspect.iscoroutinefunction(found) else ""
    line = f"{prefix}{name}({', '.join(written)}){returns}"
    if len(line) <= 100:
        return line
    inner = "".join(f"    {each},\n" for each in written)
    return f"{prefix}{name}(\n{inner}){returns}"


def _type(kind: Any) -> str:
    if kind is inspect.Parameter.empty:
        return "Any"
    if kind == Json:
        return "Json"
    if isinstance(kind, str | TypeVar):
        return str(getattr(kind, "__name__", kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(map(_type, get_args(kind)))
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__.replace("NoneType", "None")
    return re.sub(r"\b(\w+\.)+(?=\w)", "", str(kind)).replace("NoneType", "None").replace("~", "")


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, Retry):
        plain = Retry()
        changed = {
            name: getattr(value, name)
            for name in inspect.signature(Retry).parameters
            if getattr(value, name) != getattr(plain, name)
        }
        return f"Retry({', '.join(f'{name}={_shown(each)}' for name, each in changed.items())})"
    if isinstance(value, Enum):
        return repr(value.value)
    if repr(value) == "<factory>":  # of a dataclass: an empty collection
        return "..."
    return _type(value) if value is Any or isinstance(value, type) else repr(value)


def _default(value: Any) -> str:
    return "required" if value is inspect.Parameter.empty else f"`{_shown(value)}`"


def _cell(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _settings() -> list[str]:
    lines = [
        (
            f"Each is `{PREFIX}` and its name in capitals in the environment, or an argument of"
            f" `saga_engine.settings.Settings`.\n"
        ),
        "| setting | default | bounds | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {_setting_default(field)} | {_bounds(field)} | {meaning} |")
    return [*lines, ""]


def _setting_default(field: FieldInfo) -> str:
    value = field.default
    if value is None or isinstance(value, SecretStr):
        return "not set"
    return _cell(_shown(value))


def _bounds(field: FieldInfo) -> str:
    said = []
    for each in field.metadata:
        for name, sign in (("gt", "> "), ("ge", "≥ "), ("lt", "< "), ("le", "≤ ")):
            if hasattr(each, name):
                said.append(f"{sign}{getattr(each, name):,}")
        if getattr(each, "pattern", None):
            choices = str(each.pattern).strip("^$()").replace("|", ", ")
            said.append(choices)
    return ", ".join(said) or "-"


def _errors() -> list[str]:
    lines = [
        "Each is in `saga_engine.errors`. The command line exits with its code.\n",
        "| error | a kind of | exit code | meaning |",
        "|---|---|---|---|",
    ]
    for name, found in vars(errors).items():
        if inspect.isclass(found) and issubclass(found, errors.SagaEngineError):
            meaning = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
            base = found.__mro__[1].__name__
            lines.append(f"| `{name}` | `{base}` | {found.exit_code} | {meaning} |")
    return [*lines, ""]


if __name__ == "__main__":
    DOCUMENT.write_text(reference())
