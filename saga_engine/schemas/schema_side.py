"""One of two JSON Schemas that are compared: its references resolved, its unions flattened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from saga_engine.schemas.fixed_values import FixedValues, fixed_values
from saga_engine.vocabulary import Json

Node: TypeAlias = Mapping[str, Any]
"""A schema inside a document; never `true` or `false`, which are ANYTHING and NOTHING."""

ANYTHING: Node = {}
NOTHING: Node = {"enum": []}

UNDERSTOOD = frozenset(
    {
        *("type", "enum", "const", "anyOf", "oneOf"),
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("propertyNames", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("minLength", "maxLength", "pattern", "format", "timezone", "bounds"),
        *("regexEngine", "regexFlags", "stripped", "uppercase", "lowercase", "ascii"),
        *("schemes", "hostRequired", "mayBeInfinite"),
        *("contentMediaType", "contentEncoding", "contentSchema"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("maxDigits", "decimalPlaces"),
    }
)
"""Keywords that are compared. `payload.json_schema` lists those that it adds."""

NOT_UNDERSTOOD = frozenset(
    {
        *("$ref", "$dynamicRef", "$recursiveRef", "allOf", "not", "if", "then", "else"),
        *("dependentRequired", "dependentSchemas", "dependencies"),
        *("contains", "minContains", "maxContains", "additionalItems"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
"""
Keywords of the standard that decide what fits and that pydantic does not emit, or a `$ref` that
leads nowhere. Any other keyword is an annotation.
"""

_UNIONS = ("anyOf", "oneOf")
_MAX_FOLLOWED = 100
"""References and unions that lead to one another before a schema is reached; pydantic emits two."""


@dataclass(slots=True)
class Union:
    """
    The members of a union.

    Args:
        members: in their order.
        tags: for each member the fields by which a reader chooses it.
        is_ordered: whether a reader takes the first member that it can make of a value, by
            conversion, too: `left_to_right`.
        met: the unions inside it.
    """

    members: list[Node] = field(default_factory=list)
    tags: list[tuple[str, ...]] = field(default_factory=list)
    is_ordered: bool = False
    met: set[int] = field(default_factory=set)

    def add(self, node: Node, tags: tuple[str, ...]) -> None:
        """Add a member."""
        self.members.append(node)
        self.tags.append(tags)


class SchemaSide:
    """
    One document.

    Args:
        document: the JSON Schema, with its `$defs`.
    """

    def __init__(self, document: Json) -> None:
        self._document = document
        # By the identity of a schema, which is kept beside the result.
        self._nodes: dict[tuple[int, str], tuple[Any, Node]] = {}
        self._values: dict[int, tuple[Node, FixedValues | None]] = {}

    def members(self, schema: Any) -> list[Node]:
        """
        Return the members of a union, and of the unions in it; of another schema, itself.

        A schema gives the same objects each time, so that two of them can be remembered.
        """
        return self.union(schema).members

    def union(self, schema: Any) -> Union:
        """Return the members of a union, and how a reader chooses one of them."""
        union = Union()
        self._flatten(self._resolve(schema), _MAX_FOLLOWED, union, ())
        return union

    def values_of(self, node: Node) -> FixedValues | None:
        """Return the values that a schema lists, which may be thousands; None if it lists none."""
        if "enum" not in node or "const" in node:
            return fixed_values(node)
        if id(node) not in self._values:
            self._values[id(node)] = (node, fixed_values(node))
        return self._values[id(node)][1]

    def _flatten(self, node: Node, left: int, union: Union, tags: tuple[str, ...]) -> None:
        words = [word for word in _UNIONS if word in node]
        if len(words) == 1 and assertions(node) == set(words) and left:
            if id(node) in union.met:
                return  # it adds no other members
            union.met.add(id(node))
            union.is_ordered |= node.get("unionMode") == "left_to_right"
            discriminator = node.get("discriminator")
            if isinstance(discriminator, Mapping) and "propertyName" in discriminator:
                tags = (*tags, discriminator["propertyName"])
            for each in node[words[0]]:
                self._flatten(self._resolve(each), left - 1, union, tags)
        elif isinstance(node.get("type"), list):
            for each in node["type"]:
                union.add(self._keep(node, each, {**node, "type": each}), tags)
        else:
            union.add(node, tags)

    def _resolve(self, schema: Any) -> Node:
        known = self._nodes.get((id(schema), ""))
        return known[1] if known else self._keep(schema, "", self._follow(schema, _MAX_FOLLOWED))

    def _keep(self, schema: Any, part: str, node: Node) -> Node:
        return self._nodes.setdefault((id(schema), part), (schema, node))[1]

    def _follow(self, schema: Any, left: int) -> Node:
        """Replace a reference, or an `allOf` with one member, by the schema that it stands for."""
        if isinstance(schema, bool):
            return ANYTHING if schema else NOTHING
        node: Node = schema
        target = self._target(node)
        if target is None or not left:
            return node
        beside = {key: node[key] for key in assertions(node) - {"$ref", "allOf"}}
        resolved = self._follow(target, left - 1)
        if not beside:
            return resolved
        return {"allOf": [beside]} if beside.keys() & resolved.keys() else {**resolved, **beside}

    def _target(self, node: Node) -> Any:
        if "$ref" not in node:
            return node["allOf"][0] if len(node.get("allOf", ())) == 1 else None
        found: Any = self._document
        first, *parts = node["$ref"].split("/")
        for part in parts:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if first == "#" and "allOf" not in node else None


def assertions(node: Node) -> set[str]:
    """Return the keywords of a node that decide what fits."""
    return {key for key in node if key in UNDERSTOOD or key in NOT_UNDERSTOOD}
