"""Write docs/modules.md: every module and the first sentence of its docstring.

``python -m tools.modules`` writes it; with ``--check`` the exit status tells whether
it is what the docstrings say.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "sealift"
PAGE = ROOT / "docs" / "modules.md"
HEAD = """# Modules

One line each, out of their docstrings: `python -m tools.modules` writes this page, a
test compares it. Which layer may import which is in
[ARCHITECTURE.md](../ARCHITECTURE.md).
"""


def page() -> str:
    """The whole page."""
    packages = sorted({path.parent for path in SOURCE.rglob("*.py")})
    return HEAD + "".join(_section(package) for package in packages)


def _section(package: Path) -> str:
    modules = sorted(package.glob("*.py"), key=lambda path: path.stem)
    name = package.relative_to(SOURCE.parent).as_posix()
    rows = "".join(
        f"| `{path.name}` | {_first_sentence(path)} |\n"
        for path in modules
        if path.stem != "__init__"
    )
    opening = f"\n## {name}\n\n{_first_sentence(package / '__init__.py')}\n"
    table = f"\n| module | what lives there |\n|---|---|\n{rows}" if rows else ""
    return opening + table


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    return paragraph.replace("|", "\\|")


def main() -> int:
    """Write or compare."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text("utf-8") == page() else 1
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
