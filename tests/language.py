"""
The language check: words and phrases that this repository does not use, and what to write instead.

`python -m tests.language [PATH ...]` prints each finding as `path:line: phrase -> advice`; without
a path it reads every file that git knows. `tests/test_language.py` fails when there is one.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

SUFFIXES = (".py", ".pyi", ".md", ".sql", ".sh", ".toml", ".yml", ".conf")
NAMED = ("Makefile", "Dockerfile", "run")
EXEMPT = {
    "tests/language.py": "it lists the words",
    "tests/test_language.py": "it shows them",
    "tests/test_old_names.py": "it shows old names",
    "CHANGELOG.md": "it lists old names beside the new ones",
    "LICENSE": "its words are not ours",
}
"""Files that are not read, each with the reason."""

PHRASES: dict[str, str] = {
    # a subject that is not named
    r"whoever": "name the subject: the worker, the caller, the operator",
    r"whatever(?! crashes)": "name it, or leave it out",
    r"whichever": "which, or any",
    r"wherever": "where",
    r"(some|any|every)body('s)?": "name the subject",
    r"(?<![`\"'])nobody('s)?(?![`\"'])": "no process, no worker, no client: name the subject",
    r"(some|any)one('s)?": "name the subject",
    # riddles and archaic forms
    r"(?<!there )(?<!there )is no (?!longer|more|encryption)[a-z]+": "is not a ..., or: has no ...",
    r"at the (most|least)": "at most, at least",
    r"for ever": "forever, or without end",
    r"as it (stands|were)": "unchanged",
    r"(stands|stand) (there|for itself|twice)": "is",
    r"come[s]? to its end": "ends",
    r"so long (as|may)": "as long as",
    r"held against": "checked against, compared with",
    r"hold[s]? .{0,40} against": "check against, compare with",
    r"is held to": "is limited to",
    r"beforehand": "before",
    r"thereby|therein|whereby|wherein|hence|thus": "so, where, in it",
    r"in the end": "finally, or leave it out",
    r"by itself": "automatically, or leave it out",
    r"after all": "leave it out",
    r"all the same": "anyway, nevertheless",
    r"in hand": "in progress",
    r"at hand": "available",
    r"of ours": "our, the engine's",
    r"goodbye": "close handshake, shutdown",
    r"stricken": "failed",
    r"begun": "started",
    r"leads? astray|led astray": "is stale",
    r"rested": "idle",
    r"mend(s|ed|ing)?": "fix",
    r"dice": "rng, random numbers",
    r"by lot|lots? says?|draws? lots": "at random",
    r"unhurried|hasten|straight away": "immediately, or without waiting",
    r"told": "emitted, reported, sent, printed",
    r"tells?": "reports, says, returns",
    r"telling": "reporting",
    r"(put|puts|putting) by": "defer",
    r"(put|puts|set|sets|setting|putting) (it |them |what .{0,20} )?aside": "dead-letter",
    r"garbl(e|es|ed|ing)": "malformed",
    r"strangers?": "an unauthorized sender",
    r"seal(s|ed|ing)?": "encrypt",
    r"unseal(s|ed|ing)?": "decrypt",
    r"sound(ness)?": "valid",
    r"unsound": "invalid",
    r"turn(s|ed)? back": "compensate",
    r"turn(s|ed)? away": "reject",
    r"let(s)? in": "admit",
    r"accus(e|es|ed|ation|ations)": "record a crash suspect",
    r"pardon(s|ed)?": "allow a retry",
    r"meddl(e|er|ing)": "interfere",
    r"witness(es)?": "monitor, observer",
    r"overseer": "watchdog",
    r"ledger": "effect log, change set",
    r"turnover": "batch runner",
    r"arrivals?": "work item, delivery",
    r"shift": "loops, dispatcher",
    r"faithful(ly)?": "unchanged, lossless",
    r"rubbish(?! for \{)": "malformed messages",
    r"innocent": "unaffected",
    r"misfit": "mismatch",
    r"(is|are|was|were|be) away": "is unavailable",
    r"says so": "reports it",
    r"(?<!word )in words": "as a sentence",
}
"""A regular expression over lower-case text, as whole words, and what to write instead."""


def _whole_words(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{phrase})(?![\w-])")


_ANY_PHRASE = _whole_words("|".join(f"(?:{phrase})" for phrase in PHRASES))
_PATTERNS = [(_whole_words(phrase), advice) for phrase, advice in PHRASES.items()]


def files() -> Iterator[Path]:
    """Every file that git knows and the check reads."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            name not in EXEMPT
            and path.is_file()
            and (path.suffix in SUFFIXES or path.name in NAMED)
        ):
            yield path


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """The line, the phrase and the advice for each finding in a text."""
    words = text.replace("_", " ").lower()
    # Most files have none: one search for any of them is faster than one for each.
    present = _ANY_PHRASE.search(words)
    for number, line in enumerate(words.splitlines() if present else (), 1):
        for pattern, advice in _PATTERNS:
            for match in pattern.finditer(line):
                yield number, match[0], advice


def main(arguments: list[str]) -> int:
    """Print the findings of the named files or folders, or of all; 1 when there is one."""
    chosen = [Path(each).resolve() for each in arguments]
    found = 0
    for path in files():
        if chosen and not any(path == each or each in path.parents for each in chosen):
            continue
        for number, phrase, advice in findings(path.read_text()):
            found += 1
            print(f"{path.relative_to(ROOT)}:{number}: {phrase} -> {advice}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
