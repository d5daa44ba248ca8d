"""
Which types arrive unchanged, decided once, when they are declared.

pydantic reads and writes by its core schema, which is walked here. A type that consists only of
kinds on a short list, without functions, is lossless: its values are not checked. A type that can
never be read back is refused. Each value of any other type is read back before it is sent.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from saga_engine.payload.samples import SampleResult, is_object_key, try_samples
from saga_engine.payload.secret import Secret

_COMMON_KEYS = frozenset({"type", "metadata", "ref", "strict"})

_LOSSLESS_TYPES: Mapping[str, frozenset[str]] = {
    "none": _COMMON_KEYS,
    "bool": _COMMON_KEYS,
    "int": _COMMON_KEYS,
    "float": _COMMON_KEYS | {"allow_inf_nan"},
    "str": _COMMON_KEYS,
    "list": _COMMON_KEYS | {"items_schema", "fail_fast"},
    "dict": _COMMON_KEYS | {"keys_schema", "values_schema", "fail_fast"},
    "nullable": _COMMON_KEYS | {"schema"},
    "default": _COMMON_KEYS
    | {"schema", "default", "default_factory", "default_factory_takes_data"},
    "definition-ref": _COMMON_KEYS | {"schema_ref"},
    "definitions": _COMMON_KEYS | {"schema", "definitions"},
    "model": _COMMON_KEYS
    | {"cls", "schema", "config", "custom_init", "root_model", "generic_origin"},
    "model-fields": _COMMON_KEYS | {"fields", "model_name", "computed_fields", "extra_behavior"},
    "literal": _COMMON_KEYS | {"expected"},
    "enum": _COMMON_KEYS | {"cls", "members", "sub_type"},
}
"""Kinds whose values are not checked, with the schema keys allowed for each."""

_TEMPORAL_TYPES = frozenset({"datetime", "date", "time", "timedelta"})
_JSON_COMPARABLE_TYPES = frozenset(_LOSSLESS_TYPES) | _TEMPORAL_TYPES | {"decimal", "uuid"}
"""
Kinds whose values all have different JSON: it is enough to compare their JSON.

For a float this holds up to 15 digits: an int beyond 53 bits in its place is written differently.
"""

_HARMLESS_CONFIG_KEYS = frozenset(
    {"title", "strict", "frozen", "extra_fields_behavior", "serialize_by_alias"}
)
_RECORD_TYPES = frozenset({"model", "dataclass", "typed-dict"})
_SET_TYPES, _FLOAT_TYPES = frozenset({"set", "frozenset"}), frozenset({"float"})
_FUNCTION_TYPES = frozenset(
    {"function-before", "function-after", "function-wrap", "function-plain"}
)
_COMPOSITE_TYPES = _FUNCTION_TYPES | frozenset(
    {"set", "frozenset", "tuple", "union", "tagged-union", "chain", "dataclass"}
)
"""Kinds that can be read back if their parts can."""
_LIBRARY_MODULES = sys.stdlib_module_names - {"__main__"} | {"pydantic", "pydantic_core"}


class RoundTripError(Exception):
    """A type that can never be read back: where in it, why, and the fix."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


class RoundTripSafety:
    """
    What is known of a type.

    `lossless`: its values are not checked. `json_comparable`: all its values have different JSON,
    so that two are the same if their JSON is. Neither holds if one of its classes has a subclass:
    of an instance of the subclass only the fields of its parent are written. `has_sets`,
    `has_floats`: a value may contain some.
    """

    __slots__ = ("_classes", "_json_comparable", "_lossless", "has_floats", "has_sets")

    def __init__(self, visitor: "_SchemaVisitor") -> None:
        self._lossless = visitor.lossless
        self._json_comparable = visitor.json_comparable
        self._classes = tuple(visitor.classes)
        self.has_sets = visitor.has_sets
        self.has_floats = visitor.has_floats

    @property
    def lossless(self) -> bool:
        """Whether values are not checked."""
        return self._lossless and not self._subclassed

    @property
    def json_comparable(self) -> bool:
        """Whether it is enough to compare the JSON."""
        return self._json_comparable and not self._subclassed

    @property
    def _subclassed(self) -> bool:
        for cls in self._classes:  # noqa: SIM110 - runs for each payload; any() takes twice as long
            if cls.__subclasses__():
                return True
        return False


def analyze_schema(schema: Any) -> RoundTripSafety:
    """
    Analyze the type that a core schema describes.

    Raises:
        RoundTripError: no value of it, or of a part of it, can be read back.
    """
    visitor = _SchemaVisitor()
    visitor.has_sets = _contains_type(schema, _SET_TYPES)
    visitor.has_floats = _contains_type(schema, _FLOAT_TYPES)
    try:
        visitor.visit(schema, "", {})
    except (KeyError, TypeError, AttributeError, RecursionError):
        # An unknown kind of schema: each value is read back before it is sent.
        visitor.lossless, visitor.json_comparable, visitor.has_sets = False, False, True
    return RoundTripSafety(visitor)


class _SchemaVisitor:
    def __init__(self) -> None:
        self.lossless = self.json_comparable = True
        self.has_sets = self.has_floats = False
        self.classes: dict[type, None] = {}
        self._definitions: list[Any] = []

    def visit(self, schema: Any, path: str, config: Any) -> None:
        kind = schema["type"]
        self._classify(schema)
        if kind == "definitions":
            self._definitions += schema["definitions"]
            for each in schema["definitions"]:
                self.visit(each, path, config)
        if kind in _RECORD_TYPES:
            self._visit_record(schema, path, config)
            return
        if kind == "dict" and not is_object_key(schema.get("keys_schema", {"type": "any"})):
            raise RoundTripError(
                f"a key of {path or 'the mapping'} is written as text and not read back",
                "Use keys that are text, or a list of pairs.",
            )
        parts = [] if "serialization" in schema else list(_inner_schemas(schema, kind))
        for part in parts:
            self.visit(part, path, config)
        if kind not in _LOSSLESS_TYPES and not (parts and kind in _COMPOSITE_TYPES):
            self._try_samples(schema, path, config)

    def _classify(self, schema: Any) -> None:
        preserved = (
            schema["type"] in _JSON_COMPARABLE_TYPES
            and "serialization" not in schema
            and _preserves_values(schema)
        )
        if schema["type"] == "nullable":
            preserved = preserved and not self._accepts_null(schema["schema"])
        self.json_comparable = self.json_comparable and preserved
        keys = _LOSSLESS_TYPES.get(schema["type"], frozenset())
        self.lossless = self.lossless and preserved and schema.keys() <= keys

    def _accepts_null(self, schema: Any) -> bool:
        """Whether null is one of its values, so that `| None` around it adds no other JSON."""
        kind = schema["type"]
        if kind == "definition-ref":
            named = (each for each in self._definitions if each["ref"] == schema["schema_ref"])
            return any(map(self._accepts_null, named))
        if kind == "default" or schema.get("root_model"):
            return self._accepts_null(schema["schema"])
        return kind in ("none", "nullable")

    def _visit_record(self, schema: Any, path: str, config: Any) -> None:
        config = schema.get("config") or config
        cls = schema.get("cls")
        name = cls.__name__ if cls else path or "the TypedDict"
        if schema["type"] == "model":
            self.classes[schema["cls"]] = None
        if "serialization" in schema:
            pass  # its serializer decides how it is written, not its fields
        elif schema.get("root_model"):
            self.visit(schema["schema"], name, config)
        else:
            for field, each in self._record_fields(schema):
                field_path = f"{name}.{field}"
                self._check_field(each, field, field_path, config)
                self.visit(each["schema"], field_path, config)
        if _must_try_whole(schema):
            self._try_samples(schema, name, config)

    def _record_fields(self, schema: Any) -> Iterator[tuple[str, Any]]:
        """The fields of a record, inside the author's validators around it."""
        while "schema" in schema:
            schema = schema["schema"]
            self._classify(schema)
        fields = schema.get("fields", ())
        if isinstance(fields, Mapping):
            yield from fields.items()
        else:
            yield from ((each["name"], each) for each in fields)

    def _check_field(self, field: Any, name: str, field_path: str, config: Any) -> None:
        """Refuse a field that is not written, or is written by a name by which it is not read."""
        excluded = field.get("serialization_exclude", False)
        if excluded or "serialization_exclude_if" in field:
            self.lossless = self.json_comparable = False
        if excluded and field["schema"]["type"] != "default" and field.get("required", True):
            raise RoundTripError(
                f"{field_path} is required, and excluded from what is written",
                "Remove exclude=True, or give the field a default.",
            )
        written = field.get("serialization_alias", name)
        self.lossless = self.lossless and field.get("validation_alias", name) == written
        read = set(_alias_names(field.get("validation_alias", name)))
        if (config or {}).get("validate_by_name"):
            read.add(name)
        if not excluded and written not in read:
            raise RoundTripError(
                f"{field_path} is written as {written!r}, and read as {_join_with_or(read)}",
                "Use alias=..., which is for both, or add the written name to the"
                " AliasChoices that are read.",
            )

    def _try_samples(self, schema: Any, path: str, config: Any) -> None:
        if _calls_user_code(schema):
            return
        full_schema: Any = schema
        if self._definitions:
            definitions = self._definitions
            full_schema = {"type": "definitions", "schema": schema, "definitions": definitions}
        result = try_samples(full_schema, config)
        if result.problem:
            raise _round_trip_error(result, path)


def _round_trip_error(result: SampleResult, path: str) -> RoundTripError:
    if result.hides_value:
        return RoundTripError(
            f"{path or 'it'} hides its value, and is written as stars",
            "Use saga_engine.Secret[str] (or another type in the brackets), which is sent and"
            " never shown.",
        )
    return RoundTripError(
        f"{path or 'it'} {result.problem}",
        "Use a type that pydantic writes as JSON and reads back, or give this one a serializer and"
        " a validator that fit each other.",
    )


def _join_with_or(names: set[str]) -> str:
    return " or ".join(map(repr, sorted(names))) or "a part of another field"


def _alias_names(alias: Any) -> Iterator[str]:
    """The names in the object itself by which a field is read."""
    if isinstance(alias, str):
        yield alias
    elif alias and isinstance(alias[0], list):
        yield from (path[0] for path in alias if len(path) == 1)
    elif len(alias) == 1:
        yield alias[0]


def _inner_schemas(schema: Any, kind: str) -> Iterator[Any]:
    """The inner schemas of a container or a wrapper."""
    if kind in ("json-or-python", "lax-or-strict"):
        return  # a library's type: tried as a whole
    for name in ("schema", "keys_schema", "values_schema"):
        if name in schema:
            yield schema[name]
    items = schema.get("items_schema")
    if items is not None:
        yield from items if isinstance(items, list) else [items]
    choices = schema.get("choices", ())
    for each in choices.values() if isinstance(choices, Mapping) else choices:
        yield each[0] if isinstance(each, tuple) else each


def _preserves_values(schema: Any) -> bool:
    """Whether a schema of a kind on the lists leaves its values unchanged."""
    check = _VALUE_CHECKS.get(schema["type"])
    return check is None or bool(check(schema))


def _model_preserves_values(schema: Any) -> bool:
    config = schema.get("config") or {}
    return (
        not schema.get("custom_init")
        and not schema.get("post_init")
        and config.keys() <= _HARMLESS_CONFIG_KEYS
        and config.get("extra_fields_behavior") != "allow"
    )


def _same_json_type(values: Iterable[Any]) -> bool:
    """Whether values are all text or all integers, so that none is read as another."""
    return {type(each) for each in values} in ({str}, {int})


_VALUE_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "model": _model_preserves_values,
    "model-fields": lambda schema: (
        not (schema.get("computed_fields") or schema.get("extra_behavior") == "allow")
    ),
    "dict": lambda schema: schema.get("keys_schema", {}).get("type") == "str",
    "list": lambda schema: "items_schema" in schema,
    "default": lambda schema: "on_error" not in schema,
    "literal": lambda schema: _same_json_type(schema["expected"]),
    "enum": lambda schema: _same_json_type(each.value for each in schema["members"]),
}


def _must_try_whole(schema: Any) -> bool:
    """Whether a record may be altered although each of its fields alone is not."""
    if isinstance(schema, Mapping):
        keys = ("serialization", "computed_fields", "init_only", "post_init")
        if any(schema.get(key) for key in keys) or schema.get("init") is False:
            return True
        inner = (each for name, each in schema.items() if name not in ("metadata", "default"))
        return any(map(_must_try_whole, inner))
    return isinstance(schema, list | tuple) and any(map(_must_try_whole, schema))


def _contains_type(schema: Any, kinds: frozenset[str]) -> bool:
    if isinstance(schema, Mapping):
        inner = (each for name, each in schema.items() if name not in ("metadata", "default"))
        return schema.get("type") in kinds or any(_contains_type(each, kinds) for each in inner)
    return isinstance(schema, list | tuple) and any(_contains_type(each, kinds) for each in schema)


def _calls_user_code(schema: Any) -> bool:
    """Whether reading calls a function that no library declares."""
    if isinstance(schema, Mapping):
        if any(schema.get(word) for word in ("post_init", "custom_init", "missing")):
            return True
        if schema.get("type") in _FUNCTION_TYPES and not is_library_function(
            schema["function"]["function"]
        ):
            return True
        inner = (each for name, each in schema.items() if name not in ("serialization", "metadata"))
        return any(map(_calls_user_code, inner))
    return isinstance(schema, list | tuple) and any(map(_calls_user_code, schema))


def is_library_function(function: Any) -> bool:
    """Whether a function is not the author's."""
    module = getattr(function, "__module__", None) or ""
    return module == Secret.__module__ or module.partition(".")[0] in _LIBRARY_MODULES
