"""Examples of what a JSON Schema describes, to try upcasters on."""

from collections.abc import Iterator

from saga_engine.payload.samples import FORMAT_SAMPLES, samples
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.incompatibility import Problem
from saga_engine.vocabulary import Json

MAX_EXAMPLES = 10
"""Of one schema: all fields, only the required ones, and other values of each."""


def examples(schema: Json) -> Iterator[Json]:
    """
    Make some values that fit a schema.

    There are none if a pattern, or a format that is not known, decides what fits: a value that does
    not fit would be refused for a reason of its own.
    """
    if isinstance(schema, dict):
        fitting = (each for each in samples(schema) if _fits(each, schema))
        yield from (each for each, _ in zip(fitting, range(MAX_EXAMPLES), strict=False))


_HAS_SAMPLES = {f'has the format "{each}"' for each in FORMAT_SAMPLES} | {
    'has the timezone "aware"'
}


def _fits(value: Json, schema: Json) -> bool:
    # The samples of a format fit it, which a comparison of one value with a format cannot know.
    problems = compare({"const": value}, schema)
    return all(
        each.problem is Problem.FORMAT
        and (each.read in _HAS_SAMPLES or each.read.startswith("has the schemes"))
        for each in problems
    )
