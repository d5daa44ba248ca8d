"""
`Secret[T]`: a value that is sent and never shown.

pydantic's SecretStr is written as `**********`, so the stars are what arrives. A Secret is written
as its value when the engine writes a payload, and as stars everywhere else: `repr`, `str`,
`model_dump_json`, logs and errors.
"""

from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, SerializationInfo, SerializerFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

MASK = "**********"

REVEAL_SECRETS = "saga_engine.reveal_secrets"
"""A key in a serializer's context: the engine writes a value to be sent."""


class Secret(Generic[T]):
    """
    A value that is sent and stored like any other, and encrypted if a codec is set.

    It is hidden in `repr`, `str`, `model_dump_json`, logs and errors.

        class Card(BaseModel):
            number: Secret[str]

        Card(number="4111111111111111").number.get_secret_value()

    Equal to a Secret of an equal value.

    Args:
        value: the secret; `get_secret_value` returns it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def get_secret_value(self) -> T:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        type_arguments = getattr(source, "__args__", ())
        inner = handler.generate_schema(type_arguments[0] if type_arguments else Any)
        secret_schema = core_schema.no_info_after_validator_function(cls, inner)
        return core_schema.json_or_python_schema(
            json_schema=secret_schema,
            python_schema=core_schema.union_schema(
                [core_schema.is_instance_schema(cls), secret_schema]
            ),
            serialization=core_schema.wrap_serializer_function_ser_schema(
                _serialize, schema=inner, info_arg=True
            ),
        )


def _serialize(
    secret: Any, serialize_value: SerializerFunctionWrapHandler, info: SerializationInfo
) -> Any:
    context = info.context
    if isinstance(context, dict) and REVEAL_SECRETS in context:
        return serialize_value(secret.get_secret_value())
    return MASK if info.mode == "json" else secret
