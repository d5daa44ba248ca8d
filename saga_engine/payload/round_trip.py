"""
Which types arrive as they were given, found out once, when they are declared.

The core schema of pydantic, which is what reads and writes, is walked. What consists of nothing but
kinds on a short list, without functions of anyone's, is faithful: its values need no look. What can
never survive is refused here. Of everything else each value is read back before it is sent.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from saga_engine.payload.samples import Tried, attempt, is_object_key
from saga_engine.payload.secret import Secret

_META = frozenset({"type", "metadata", "ref", "strict"})

_PLAIN: Mapping[str, frozenset[str]] = {
    "none": _META,
    "bool": _META,
    "int": _META,
    "float": _META | {"allow_inf_nan"},
    "str": _META,
    "list": _META | {"items_schema", "fail_fast"},
    "dict": _META | {"keys_schema", "values_schema", "fail_fast"},
    "nullable": _META | {"schema"},
    "default": _META | {"schema", "default", "default_factory", "default_factory_takes_data"},
    "definition-ref": _META | {"schema_ref"},
    "definitions": _META | {"schema", "definitions"},
    "model": _META | {"cls", "schema", "config", "custom_init", "root_model", "generic_origin"},
    "model-fields": _META | {"fields", "model_name", "computed_fields", "extra_behavior"},
    "literal": _META | {"expected"},
    "enum": _META | {"cls", "members", "sub_type"},
}
"""Kinds whose values need no look, with what may be said of each; anything else is looked at."""

_TIMES = frozenset({"datetime", "date", "time", "timedelta"})
_EXACT = frozenset(_PLAIN) | _TIMES | {"decimal", "uuid"}
"""
Kinds of which no two values are written alike: compared as JSON, they need no other look.

That holds for a float up to 15 digits: an int beyond 53 bits in its place is written as another.
"""

_CONFIG = frozenset({"title", "strict", "frozen", "extra_fields_behavior", "serialize_by_alias"})
_RECORDS = frozenset({"model", "dataclass", "typed-dict"})
_SETS, _FLOATS = frozenset({"set", "frozenset"}), frozenset({"float"})
_FUNCTIONS = frozenset({"function-before", "function-after", "function-wrap", "function-plain"})
_WHOLES = _FUNCTIONS | {"set", "frozenset", "tuple", "union", "tagged-union", "chain", "dataclass"}
"""Kinds that are sound when their parts are."""
_LIBRARIES = sys.stdlib_module_names - {"__main__"} | {"pydantic", "pydantic_core"}


class Lost(Exception):
    """A type can never survive; where in it, why, and what to do."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


class Faith:
    """
    What is known of a type.

    `proven`: its values need no look. `exact`: no two of its values are written alike, so that one
    is the same when its JSON is. Neither holds when one of `classes` has been subclassed: of an
    instance of the subclass only the fields of its parent are written. `sets`, `floats`: it may
    hold some.
    """

    __slots__ = ("_classes", "_exact", "_proven", "floats", "sets")

    def __init__(self, walk: "_Walk") -> None:
        self._proven = walk.proven
        self._exact = walk.exact
        self._classes = tuple(walk.classes)
        self.sets = walk.sets
        self.floats = walk.floats

    @property
    def proven(self) -> bool:
        """Whether values need no look."""
        return self._proven and not self._subclassed

    @property
    def exact(self) -> bool:
        """Whether a look at the JSON is enough."""
        return self._exact and not self._subclassed

    @property
    def _subclassed(self) -> bool:
        for cls in self._classes:  # noqa: SIM110 - asked of each payload; any() takes twice as long
            if cls.__subclasses__():
                return True
        return False


def faith_in(schema: Any) -> Faith:
    """
    Find out what is known of the type that a core schema stands for.

    Raises:
        Lost: no value of it, or of a part of it, can survive.
    """
    walk = _Walk()
    walk.sets = _holds(schema, _SETS)
    walk.floats = _holds(schema, _FLOATS)
    try:
        walk.visit(schema, "", {})
    except (KeyError, TypeError, AttributeError, RecursionError):
        # A kind of schema that is not known here: its values are looked at as they come.
        walk.proven, walk.exact, walk.sets = False, False, True
    return Faith(walk)


class _Walk:
    def __init__(self) -> None:
        self.proven = self.exact = True
        self.sets = self.floats = False
        self.classes: dict[type, None] = {}
        self._definitions: list[Any] = []

    def visit(self, schema: Any, where: str, config: Any) -> None:
        kind = schema["type"]
        self._judge(schema)
        if kind == "definitions":
            self._definitions += schema["definitions"]
            for each in schema["definitions"]:
                self.visit(each, where, config)
        if kind in _RECORDS:
            self._record(schema, where, config)
            return
        if kind == "dict" and not is_object_key(schema.get("keys_schema", {"type": "any"})):
            raise Lost(
                f"a key of {where or 'the mapping'} is written as text and not read back",
                "Use keys that are text, or a list of pairs.",
            )
        parts = [] if "serialization" in schema else list(_parts(schema, kind))
        for part in parts:
            self.visit(part, where, config)
        if kind not in _PLAIN and not (parts and kind in _WHOLES):
            self._try(schema, where, config)

    def _judge(self, schema: Any) -> None:
        sound = schema["type"] in _EXACT and "serialization" not in schema and _is_sound(schema)
        if schema["type"] == "nullable":
            sound = sound and not self._reads_null(schema["schema"])
        self.exact = self.exact and sound
        keys = _PLAIN.get(schema["type"], frozenset())
        self.proven = self.proven and sound and schema.keys() <= keys

    def _reads_null(self, schema: Any) -> bool:
        """Whether null is a value of it, so that None around it is written alike."""
        kind = schema["type"]
        if kind == "definition-ref":
            named = (each for each in self._definitions if each["ref"] == schema["schema_ref"])
            return any(map(self._reads_null, named))
        if kind == "default" or schema.get("root_model"):
            return self._reads_null(schema["schema"])
        return kind in ("none", "nullable")

    def _record(self, schema: Any, where: str, config: Any) -> None:
        config = schema.get("config") or config
        cls = schema.get("cls")
        name = cls.__name__ if cls else where or "the TypedDict"
        if schema["type"] == "model":
            self.classes[schema["cls"]] = None
        if "serialization" in schema:
            pass  # how its fields are declared does not say how they are written
        elif schema.get("root_model"):
            self.visit(schema["schema"], name, config)
        else:
            for field, each in self._fields(schema):
                place = f"{name}.{field}"
                self._field(each, field, place, config)
                self.visit(each["schema"], place, config)
        if _does_more(schema):
            self._try(schema, name, config)

    def _fields(self, schema: Any) -> Iterator[tuple[str, Any]]:
        """The fields of a record, inside of what the author's functions wrap around them."""
        while "schema" in schema:
            schema = schema["schema"]
            self._judge(schema)
        fields = schema.get("fields", ())
        if isinstance(fields, Mapping):
            yield from fields.items()
        else:
            yield from ((each["name"], each) for each in fields)

    def _field(self, field: Any, name: str, place: str, config: Any) -> None:
        """Refuse a field that is written under no name, or one by which it is not read."""
        excluded = field.get("serialization_exclude", False)
        if excluded or "serialization_exclude_if" in field:
            self.proven = self.exact = False
        if excluded and field["schema"]["type"] != "default" and field.get("required", True):
            raise Lost(
                f"{place} is required, and excluded from what is written",
                "Take exclude=True out, or give the field a default.",
            )
        written = field.get("serialization_alias", name)
        self.proven = self.proven and field.get("validation_alias", name) == written
        read = set(_names(field.get("validation_alias", name)))
        if (config or {}).get("validate_by_name"):
            read.add(name)
        if not excluded and written not in read:
            raise Lost(
                f"{place} is written as {written!r}, and read as {_or(read)}",
                "Use alias=..., which holds for both, or add the written name to the"
                " AliasChoices that are read.",
            )

    def _try(self, schema: Any, where: str, config: Any) -> None:
        if _calls_the_author(schema):
            return
        whole: Any = schema
        if self._definitions:
            whole = {"type": "definitions", "schema": schema, "definitions": self._definitions}
        tried = attempt(whole, config)
        if tried.lost:
            raise _lost(tried, where)


def _lost(tried: Tried, where: str) -> Lost:
    if tried.secret:
        return Lost(
            f"{where or 'it'} hides its value, and is written as stars",
            "Use saga_engine.Secret[str] (or another type in the brackets), which travels and is"
            " never shown.",
        )
    return Lost(
        f"{where or 'it'} {tried.lost}",
        "Use a type that pydantic writes as JSON and reads back, or give this one a serializer and"
        " a validator that fit each other.",
    )


def _or(names: set[str]) -> str:
    return " or ".join(map(repr, sorted(names))) or "a part of another field"


def _names(alias: Any) -> Iterator[str]:
    """The names, in the object itself, by which a field is read."""
    if isinstance(alias, str):
        yield alias
    elif alias and isinstance(alias[0], list):
        yield from (path[0] for path in alias if len(path) == 1)
    elif len(alias) == 1:
        yield alias[0]


def _parts(schema: Any, kind: str) -> Iterator[Any]:
    """The schemas that a container's or a wrapper's is made of."""
    if kind in ("json-or-python", "lax-or-strict"):
        return  # one type of a library's: tried as a whole
    for name in ("schema", "keys_schema", "values_schema"):
        if name in schema:
            yield schema[name]
    items = schema.get("items_schema")
    if items is not None:
        yield from items if isinstance(items, list) else [items]
    choices = schema.get("choices", ())
    for each in choices.values() if isinstance(choices, Mapping) else choices:
        yield each[0] if isinstance(each, tuple) else each


def _is_sound(schema: Any) -> bool:
    """Whether what a kind on the lists declares leaves its values as they are."""
    look = _LOOKS.get(schema["type"])
    return look is None or bool(look(schema))


def _is_sound_model(schema: Any) -> bool:
    config = schema.get("config") or {}
    return (
        not schema.get("custom_init")
        and not schema.get("post_init")
        and config.keys() <= _CONFIG
        and config.get("extra_fields_behavior") != "allow"
    )


def _alike(values: Iterable[Any]) -> bool:
    """Whether values are all text, or all integers, so that none is read as another."""
    return {type(each) for each in values} in ({str}, {int})


_LOOKS: Mapping[str, Callable[[Any], object]] = {
    "model": _is_sound_model,
    "model-fields": lambda schema: (
        not (schema.get("computed_fields") or schema.get("extra_behavior") == "allow")
    ),
    "dict": lambda schema: schema.get("keys_schema", {}).get("type") == "str",
    "list": lambda schema: "items_schema" in schema,
    "default": lambda schema: "on_error" not in schema,
    "literal": lambda schema: _alike(schema["expected"]),
    "enum": lambda schema: _alike(each.value for each in schema["members"]),
}


def _does_more(schema: Any) -> bool:
    """Whether a record may be lost although each of its fields, tried alone, survives."""
    if isinstance(schema, Mapping):
        words = ("serialization", "computed_fields", "init_only", "post_init")
        if any(schema.get(word) for word in words) or schema.get("init") is False:
            return True
        inner = (each for name, each in schema.items() if name not in ("metadata", "default"))
        return any(map(_does_more, inner))
    return isinstance(schema, list | tuple) and any(map(_does_more, schema))


def _holds(schema: Any, kinds: frozenset[str]) -> bool:
    if isinstance(schema, Mapping):
        inner = (each for name, each in schema.items() if name not in ("metadata", "default"))
        return schema.get("type") in kinds or any(_holds(each, kinds) for each in inner)
    return isinstance(schema, list | tuple) and any(_holds(each, kinds) for each in schema)


def _calls_the_author(schema: Any) -> bool:
    """Whether reading calls a function that is not a library's."""
    if isinstance(schema, Mapping):
        if any(schema.get(word) for word in ("post_init", "custom_init", "missing")):
            return True
        if schema.get("type") in _FUNCTIONS and not _is_librarys(schema["function"]["function"]):
            return True
        inner = (each for name, each in schema.items() if name not in ("serialization", "metadata"))
        return any(map(_calls_the_author, inner))
    return isinstance(schema, list | tuple) and any(map(_calls_the_author, schema))


def _is_librarys(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return function is Secret or module.partition(".")[0] in _LIBRARIES
