"""
Write the state diagrams of a run and of a step into README.md and docs/semantics.md.

    make diagrams

A document has each diagram between two comments: `<!-- run-diagram -->` and
`<!-- /run-diagram -->`.
"""

import re
from pathlib import Path

from saga_engine.decider.diagrams import run_diagram, step_diagram
from saga_engine.vocabulary import Direction

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "semantics.md")

DIAGRAMS = {
    "run": run_diagram,
    "action": lambda: step_diagram(Direction.ACTION),
    "compensation": lambda: step_diagram(Direction.COMPENSATION),
}

_DIAGRAM = re.compile(r"(<!-- (\w+)-diagram -->\n).*?(<!-- /\2-diagram -->)", re.DOTALL)


def with_diagrams(text: str) -> str:
    """The text of a document, with each of its diagrams as the tables say."""
    return _DIAGRAM.sub(lambda at: f"{at[1]}```mermaid\n{DIAGRAMS[at[2]]()}```\n{at[3]}", text)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_diagrams(document.read_text()))
