"""The documents do not lie: examples parse, named tests exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sealift.agent.boot.file import Store, choose
from sealift.agent.record import unpack
from sealift.core.types import Slot

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MARKDOWN = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_PROVED = re.compile(
    r"^- \[x\] .*?`(?P<file>tests/[\w/.]+)::(?P<name>\w+)`", re.MULTILINE
)
_LINE = re.compile(r"^- \[(?P<tick>.)\] ", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)")


def _block(text: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_loader_record_of_the_guide_is_valid() -> None:
    """The example bytes in docs/integrating.md are what the agent would write."""
    text = (DOCS / "integrating.md").read_text("utf-8")
    copy = unpack(_block(text, "record").encode())
    assert copy is not None
    assert copy.sequence == 7
    store = Store.from_text(copy.payload.decode())
    started, after = choose(store)
    assert (started, after.tries) == (Slot.B, store.tries - 1)


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_behaviour_names_a_test_that_exists() -> None:
    """Each ticked line of docs/behaviours.md is proved by a test of that name."""
    text = (DOCS / "behaviours.md").read_text("utf-8")
    proved = list(_PROVED.finditer(text))
    ticked = [found for found in _LINE.finditer(text) if found["tick"] == "x"]
    assert len(proved) == len(ticked) > 20, "a ticked line must name its test"
    missing = [
        f"{found['file']}::{found['name']}"
        for found in proved
        if not (ROOT / found["file"]).is_file()
        or found["name"] not in _functions(ROOT / found["file"])
    ]
    assert not missing


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """A relative link in a document names a file of the project."""
    targets = _LINK.findall(path.read_text("utf-8"))
    assert not [name for name in targets if not (path.parent / name).exists()]


def test_the_readme_starts_with_two_commands() -> None:
    """The first screen names `make demo` and `make test` and no other set-up."""
    screen = (ROOT / "README.md").read_text("utf-8").splitlines()[:40]
    commands = [line.split("#")[0].strip() for line in screen if line[:4] == "    "]
    assert commands[:2] == ["make demo", "make test"]
    assert not [line for line in screen if re.search(r"\b(pip|apt|apt-get|uv) ", line)]


def test_every_word_is_defined_once() -> None:
    """docs/terms.md has no word twice, and has the words of the architecture."""
    text = (DOCS / "terms.md").read_text("utf-8")
    cells = re.findall(r"^\| (\*\*.+?\*\*) \|", text, re.MULTILINE)
    words = [word for cell in cells for word in re.findall(r"\*\*(.+?)\*\*", cell)]
    assert len(words) == len(set(words))
    needed = [
        "release",
        "artifact",
        "component",
        "slot",
        "deployment",
        "group",
        "installation",
        "bundle",
        "evidence",
        "gate",
        "duty",
        "outcome",
        "journal",
        "stage",
        "arm",
        "probe",
        "confirm",
        "revert",
        "checkpoint",
        "inclusion",
        "consistency",
        "witness",
        "advisory",
        "affected",
        "fixed",
    ]
    assert set(needed) <= set(words)
