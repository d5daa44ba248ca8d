"""The values that a schema lists, and the equality of JSON: 1 is 1.0, and neither is true."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from saga_engine.vocabulary import Json

JSON_TYPES: Mapping[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


class FixedValues:
    """
    Some values of JSON, each found in constant time.

    Args:
        values: in the order of their schema.

    Attributes:
        keys: for each value something that is equal for values that are one in JSON.
    """

    def __init__(self, values: Sequence[Json]) -> None:
        self._values = values
        self.keys = frozenset(map(_key, values))

    def __contains__(self, value: Json) -> bool:
        return _key(value) in self.keys

    def __iter__(self) -> Iterator[Json]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def overlaps(self, other: "FixedValues") -> bool:
        """Whether both have one value."""
        return not self.keys.isdisjoint(other.keys)

    @property
    def text(self) -> str:
        """The first values, in a sentence."""
        shown = ", ".join(map(repr, self._values[:5]))
        more = len(self._values) - 5
        return f"{shown} and {more} more" if more > 0 else shown or "nothing"


def fixed_values(node: Mapping[str, Any]) -> FixedValues | None:
    """Return the values that a schema lists; None if it lists none."""
    if "const" in node:
        return FixedValues([node["const"]])
    return FixedValues(node["enum"]) if "enum" in node else None


def _key(value: Any) -> Hashable:
    """Make what is equal for values that are one in JSON."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, *map(_key, value))
    if isinstance(value, Mapping):
        return (dict, frozenset((name, _key(each)) for name, each in value.items()))
    key: Hashable = value
    return key


def schema_of_value(value: Json) -> Mapping[str, Any]:
    """Return the schema that describes one value by its parts, for a reader that lists none."""
    if isinstance(value, dict):
        properties = {name: {"const": each} for name, each in value.items()}
        return {"type": "object", "properties": properties, "required": [*value]}
    if isinstance(value, list):
        items = [{"const": each} for each in value]
        size = len(value)
        return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}
    node: dict[str, Any] = {"type": JSON_TYPES[type(value)]}
    if isinstance(value, str):
        changes = {
            "stripped": value.strip(),
            "uppercase": value.upper(),
            "lowercase": value.lower(),
            "ascii": value if value.isascii() else "",
        }
        unchanged = {keyword: True for keyword, each in changes.items() if each == value}
        return node | unchanged | {"minLength": len(value), "maxLength": len(value)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        # pydantic reads no float beyond 64 bits as an integer.
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            node["type"] = "integer"
        return node | {"minimum": value, "maximum": value, "multipleOf": abs(value)}
    return node
