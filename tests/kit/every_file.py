"""One test for all files: thousands of small tests take longer than what they check."""

from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def every_file(paths: Iterable[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make a check of one file a test of all of them, which names every file that fails."""

    def test_of(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            problems = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    problems.append(f"{path.relative_to(ROOT)}: {error}")
            assert not problems, "\n".join(problems)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return test_of
