"""What callers pass, checked before it is used: the class of an object, the range of a number."""

from types import UnionType

from saga_engine.errors import InvalidInput
from saga_engine.payload.payload import type_name

MAX_VERSION = 2**31 - 1
MAX_POSITION = 2**63 - 1


def require_instance(given: object, expected: type | UnionType, name: str, fix: str) -> None:
    """
    Check the class of an argument.

    Args:
        given: the argument.
        expected: its class, or several.
        name: what it is, as the beginning of a sentence: "The aggregate".
        fix: what to give.

    Raises:
        InvalidInput: it is of another class.
    """
    if not isinstance(given, expected):
        raise InvalidInput(f"{name} is of the class {type_name(type(given))}. {fix}")


def require_number(given: object, name: str, maximum: int) -> None:
    """
    Check a version or a position.

    Args:
        given: the argument.
        name: what it is, as the beginning of a sentence.
        maximum: the highest one that PostgreSQL stores.

    Raises:
        InvalidInput: it is not an integer from 0 to *maximum*.
    """
    if type(given) is not int or not 0 <= given <= maximum:
        raise InvalidInput(f"{name} is {given!r:.80}. Give an integer, from 0 to {maximum}.")
