"""Code cells of the pages in docs/, run as a reader would run them, one after the other, without Jupyter."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SKIPPED = re.compile(r"^:tags: \[.*skip-execution.*\]$", re.MULTILINE)
OPTION = re.compile(r"^:[a-z-]+:.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A code cell, whether it is executed, and its line in the page."""

    code: str
    executed: bool
    line: int


def cells(page: Path) -> list[Cell]:
    """The code cells of a page, in order."""
    text = page.read_text()
    return [
        Cell(OPTION.sub("", match.group(1)), not SKIPPED.search(match.group(1)), text[: match.start()].count("\n") + 2)
        for match in CELL.finditer(text)
    ]


def run(page: Path) -> None:
    """Run the executed cells of a page in one namespace; an error names the page's line."""
    namespace = {"__name__": "__main__"}
    for cell in cells(page):
        if cell.executed:
            code = "\n" * (cell.line - 1) + cell.code
            exec(compile(code, str(page), "exec"), namespace)
