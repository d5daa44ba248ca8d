"""Pairs of schemas: one that is generated, and a change of it as authors make them."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
WORDS = st.sampled_from(["x", "y", "z"])
SIZES = st.integers(0, 4)

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _texts() -> st.SearchStrategy[Any]:
    limits = st.fixed_dictionaries({}, optional={"minLength": SIZES, "maxLength": SIZES})
    return limits.map(lambda each: {"type": "string", **each})


def _numbers() -> st.SearchStrategy[Any]:
    bounds = st.dictionaries(st.sampled_from(_BOUNDS), st.integers(-3, 3), max_size=1)
    step = st.fixed_dictionaries({}, optional={"multipleOf": st.sampled_from([2, 4])})
    return st.tuples(st.sampled_from(["integer", "number"]), bounds, step).map(
        lambda drawn: {"type": drawn[0], **drawn[1], **drawn[2]}
    )


def _values() -> st.SearchStrategy[Any]:
    several = st.lists(WORDS, min_size=1, max_size=3, unique=True).map(
        lambda values: {"type": "string", "enum": values}
    )
    return several | WORDS.map(lambda value: {"type": "string", "const": value})


SCALARS = st.one_of(
    _texts(),
    _numbers(),
    _values(),
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {}]),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda properties, required, closed: {
            "type": "object",
            "properties": properties,
            "required": sorted(required & properties.keys()),
            **({"additionalProperties": False} if closed else {}),
        },
        st.dictionaries(NAMES, inner, max_size=3),
        st.sets(NAMES),
        st.integers(0, 5).map(lambda number: number == 0),
    )


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        _objects(inner),
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda values: {"type": "object", "additionalProperties": values}),
        st.tuples(inner, SIZES).map(
            lambda drawn: {
                "type": "object",
                "additionalProperties": drawn[0],
                "propertyNames": {"maxLength": drawn[1]},
            }
        ),
        st.lists(inner, min_size=2, max_size=3).map(lambda members: {"anyOf": members}),
    )


SCHEMAS = st.recursive(SCALARS, _containers, max_leaves=6)
DOCUMENTS = _objects(SCHEMAS)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Any, Any]:
    """A document, and the same with a few changes."""
    old = draw(DOCUMENTS)
    new = old
    for _ in range(draw(st.integers(1, 2))):
        new = draw(_changed(new))
    return (old, new) if draw(st.booleans()) else (new, old)


@st.composite
def _changed(draw: st.DrawFn, schema: Any) -> Any:
    """Change one part of a schema."""
    if schema.get("properties") and draw(st.integers(0, 2)):
        name = draw(st.sampled_from(sorted(schema["properties"])))
        part = draw(_changed(schema["properties"][name]))
        return {**schema, "properties": {**schema["properties"], name: part}}
    if schema.get("type") == "object" and "properties" in schema:
        return draw(_changed_fields(schema))
    if "propertyNames" in schema and draw(st.booleans()):
        return {**schema, "propertyNames": {"maxLength": draw(SIZES)}}
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            return {**schema, keyword: draw(_changed(schema[keyword]))}
    if "anyOf" in schema:
        members = [*schema["anyOf"], draw(SCALARS)]
        return {"anyOf": members[1:] if draw(st.booleans()) else members}
    return draw(SCALARS | st.just({"anyOf": [schema, {"type": "null"}]}))


@st.composite
def _changed_fields(draw: st.DrawFn, schema: Any) -> Any:
    """Add or remove a field, or change whether it is required."""
    name = draw(NAMES)
    properties, required = dict(schema["properties"]), set(schema["required"])
    if name in properties and draw(st.booleans()):
        del properties[name]
        required.discard(name)
    else:
        properties.setdefault(name, draw(SCALARS))
        required ^= {name}
    return {**schema, "properties": properties, "required": sorted(required)}
