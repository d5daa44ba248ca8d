"""A declaration that must be refused at the line that breaks the rule."""

import inspect
from collections.abc import Callable

import pytest

from saga_engine import Saga
from saga_engine.errors import DefinitionError
from saga_engine.saga.rules import check


def definition_error(declare: Callable[[], Saga | None]) -> DefinitionError:
    """The error of a declaration; it must point at the line marked `# here`."""
    source = inspect.getsourcefile(declare)
    lines, first = inspect.getsourcelines(declare)
    (marked_line,) = [first + n for n, line in enumerate(lines) if line.rstrip().endswith("# here")]
    with pytest.raises(DefinitionError) as caught:
        check(declare() or Saga("never", version=1, input=dict))
    assert caught.value.location == f"{source}:{marked_line}"
    assert str(caught.value).startswith(f"{source}:{marked_line}: {caught.value.problem}")
    assert caught.value.fix
    return caught.value
