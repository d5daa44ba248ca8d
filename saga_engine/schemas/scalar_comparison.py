"""Texts and numbers: what of a writer's a reader's schema may refuse."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saga_engine.schemas.incompatibility import Incompatibility, Problem
from saga_engine.schemas.schema_side import Node
from saga_engine.vocabulary import Json

_ANY_TEXT = frozenset({"binary", "password", "path"})
"""Formats that pydantic emits for any text."""

_ENCODED = frozenset({"base64url", "base64", "hex"})
"""Formats of bytes that are not the text itself."""

_WIDER_FORMATS: Mapping[str, Sequence[str]] = {
    **{f"uuid{version}": ("uuid",) for version in range(1, 9)},
    "integer": ("number", "decimal"),
}
_NUMBER_FORMATS = frozenset({"integer", "number", "decimal"})
_TEXT_KEYWORDS = (
    *("pattern", "timezone", "bounds", "schemes", "hostRequired"),
    *("stripped", "uppercase", "lowercase", "ascii"),
    *("contentMediaType", "contentEncoding", "contentSchema"),
)
_PATTERN_KEYWORDS = ("regexEngine", "regexFlags")
_MOST_BYTES = 4
"""Of a letter in UTF-8."""


def compare_texts(writer: Node, reader: Node, path: str) -> Iterator[Incompatibility]:
    """Compare two schemas of texts."""
    lengths = ("minLength", "maxLength")
    yield from compare_limits(_lengths_as_read(writer, reader), reader, path, lengths)
    expected, found = _format(reader), _format(writer)
    if expected and expected not in (found, *_WIDER_FORMATS.get(found, ())):
        yield _differs(path, Problem.FORMAT, "format", expected, found)
    elif found in _ENCODED and not expected:
        read = "is the text itself"
        yield Incompatibility(path, Problem.FORMAT, f'has the format "{found}"', read)
    elif expected in _NUMBER_FORMATS:
        yield from compare_numbers(writer, reader, path)
    yield from _compare_keywords(writer, reader, path, _TEXT_KEYWORDS)
    if "pattern" in reader and "pattern" in writer:
        engine = {**dict.fromkeys(_PATTERN_KEYWORDS), **reader}
        yield from _compare_keywords(writer, engine, path, _PATTERN_KEYWORDS)


def _compare_keywords(
    writer: Node, reader: Node, path: str, keywords: Sequence[str]
) -> Iterator[Incompatibility]:
    for keyword in keywords:
        expected, found = reader.get(keyword), writer.get(keyword)
        if keyword in reader and expected != found:
            yield _differs(path, Problem.FORMAT, keyword, expected, found)


def _lengths_as_read(writer: Node, reader: Node) -> Node:
    """Give the limits of a writer in what the reader counts: a letter has 1 to 4 bytes."""
    written, read = (each.get("format") == "binary" for each in (writer, reader))
    if read and not written and "maxLength" in writer:
        return {**writer, "maxLength": writer["maxLength"] * _MOST_BYTES}
    if written and not read and "minLength" in writer:
        return {**writer, "minLength": -(-writer["minLength"] // _MOST_BYTES)}
    return writer


def _format(node: Node) -> str:
    found: str = node.get("format", "")
    return "" if found in _ANY_TEXT else found


def compare_numbers(writer: Node, reader: Node, path: str) -> Iterator[Incompatibility]:
    """Compare two schemas of numbers, or of texts that are decimal numbers."""
    if writer.get("mayBeInfinite") and not reader.get("mayBeInfinite"):
        read = "is always finite"
        yield Incompatibility(path, Problem.LIMIT, "may be infinite", read)
    yield from _compare_keywords(writer, reader, path, ("bounds",))
    yield from _compare_bounds(writer, reader, path)
    step = reader.get("multipleOf")
    if step is not None and not _is_multiple(writer, step):
        yield _differs(path, Problem.LIMIT, "multipleOf", step, writer.get("multipleOf"))
    yield from _compare_digits(writer, reader, path)


def _is_multiple(writer: Node, step: float) -> bool:
    found = writer.get("multipleOf", 1 if _is_integer(writer) else None)
    return found is not None and found % step == 0


def _is_integer(node: Node) -> bool:
    """Whether a number, or the text of a number, is whole."""
    return "integer" in (node.get("type"), node.get("format"))


def _compare_bounds(writer: Node, reader: Node, path: str) -> Iterator[Incompatibility]:
    for inclusive, exclusive, is_inside in (
        ("minimum", "exclusiveMinimum", operator.ge),
        ("maximum", "exclusiveMaximum", operator.le),
    ):
        for keyword in (inclusive, exclusive):
            if keyword not in reader:
                continue
            limit = reader[keyword]
            fits = any(
                is_inside(writer[each], limit)
                and (keyword == inclusive or each == exclusive or writer[each] != limit)
                for each in (inclusive, exclusive)
                if each in writer
            )
            if not fits:
                found = next((each for each in (inclusive, exclusive) if each in writer), None)
                yield _limit(path, keyword, limit, found or keyword, writer.get(found or keyword))


def _compare_digits(writer: Node, reader: Node, path: str) -> Iterator[Incompatibility]:
    """Compare `maxDigits` and `decimalPlaces`, and the digits that they leave before the point."""
    places = 0 if _is_integer(writer) else None
    written = {"decimalPlaces": places, **writer}
    for keyword in ("maxDigits", "decimalPlaces"):
        limit, found = reader.get(keyword), written.get(keyword)
        if limit is not None and (found is None or found > limit):
            yield _limit(path, keyword, limit, keyword, found)
            return
    allowed, whole = _whole_digits(reader), _whole_digits(written)
    if "decimalPlaces" in reader and allowed is not None and (whole is None or whole > allowed):
        read = f"has at most {allowed} digits before the point"
        has = f"has {whole}" if whole is not None else "has no such limit"
        yield Incompatibility(path, Problem.LIMIT, has, read)


def _whole_digits(node: Mapping[str, Any]) -> int | None:
    if node.get("maxDigits") is None:
        return None
    digits: int = node["maxDigits"] - (node.get("decimalPlaces") or 0)
    return digits


def compare_limits(
    writer: Node, reader: Node, path: str, keywords: tuple[str, str]
) -> Iterator[Incompatibility]:
    """Compare the smallest and the largest size of a text, an array or an object."""
    least, most = keywords
    if reader.get(least, 0) > writer.get(least, 0):
        yield _limit(path, least, reader[least], least, writer.get(least))
    if most in reader and (most not in writer or writer[most] > reader[most]):
        yield _limit(path, most, reader[most], most, writer.get(most))


def _limit(path: str, keyword: str, limit: Json, found_as: str, found: Json) -> Incompatibility:
    written = f"has {found_as} {found}" if found is not None else "has no such limit"
    return Incompatibility(path, Problem.LIMIT, written, f"has {keyword} {limit}")


def _differs(
    path: str, problem: Problem, keyword: str, expected: Json, found: Json
) -> Incompatibility:
    if expected is True:
        written, read = f"is not always {keyword}", f"is always {keyword}"
        return Incompatibility(path, problem, written, read)
    written = f'has the {keyword} "{found}"' if found else "has none"
    read = f'has the {keyword} "{expected}"' if expected else f"has no {keyword}"
    return Incompatibility(path, problem, written, read)


_NAMES: Mapping[str, str] = {
    "null": "null",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "array": "an array",
    "object": "an object",
}

describe_type: Callable[[str], str] = _NAMES.__getitem__
"""The name of a JSON type with its article."""
