"""The gates: style, types, import contracts and house rules, as ordinary tests."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sealift.agent.clock import SystemClock
from sealift.agent.wiring import BUILD_TIME
from tools import modules

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/sealift"
BIN = Path(sys.executable).parent


def _gate(*command: str) -> None:
    """Run a tool of the environment; what it says is the failure."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # A pipe has no width, and the tools guess one.
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    """Every file keeps the lint rules of pyproject.toml."""
    _gate("ruff", "check", "--quiet", ".")


def test_everything_is_formatted() -> None:
    """The formatter would change nothing."""
    _gate("ruff", "format", "--check", "--quiet", "--diff", ".")


def test_types_hold() -> None:
    """mypy, strict, over the source, the tests, the tools and the benchmarks."""
    _gate("mypy")


def test_import_contracts_hold() -> None:
    """The contracts of pyproject.toml: invariants 1, 2 and 9 of ARCHITECTURE.md."""
    _gate("lint-imports", "--no-cache")


def _modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


# Names a pure module has no business calling, and where they would reach.
IMPURE_NAMES = {"open", "input", "print", "exec", "eval", "__import__", "breakpoint"}
IMPURE_METHODS = {
    "now": "a clock",
    "utcnow": "a clock",
    "today": "a clock",
    "urandom": "chance",
    "uuid1": "chance",
    "uuid4": "chance",
    "getrandbits": "chance",
    "open_code": "the disk",
    "import_module": "the disk",
}


def _impurities(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_NAMES:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id="io"), attr="open"):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: io.open()"
            case ast.Attribute(attr=name) if name in IMPURE_METHODS:
                reaches = IMPURE_METHODS[name]
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}() is {reaches}"


def test_core_calls_nothing_impure() -> None:
    """Builtins that reach the disk or a clock: import contracts cannot see them."""
    found = [line for path in _modules(SOURCE / "core") for line in _impurities(path)]
    assert not found, "\n".join(found)


def test_every_module_says_what_it_is() -> None:
    """Each package and module opens with a docstring."""
    silent = [
        str(path.relative_to(ROOT))
        for path in _modules(SOURCE)
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert not silent


def test_the_map_of_modules_is_what_their_docstrings_say() -> None:
    """`docs/modules.md` is as `python -m tools.modules` writes it."""
    assert modules.PAGE.read_text("utf-8") == modules.page()


def test_packages_hold_no_code() -> None:
    """An `__init__.py` is a docstring and perhaps imports: code there ties knots."""
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    busy = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCE.rglob("__init__.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if not isinstance(node, allowed)
    ]
    assert not busy


def _committed() -> list[Path]:
    """The files git tracks; without git, everything but what tools leave behind."""
    if shutil.which("git") and (ROOT / ".git").exists():
        # The clone may belong to somebody else, as in a container.
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        names = listed.stdout.decode().split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    left_behind = {".git", ".venv", "__pycache__", ".hypothesis"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not left_behind.intersection(path.relative_to(ROOT).parts)
        and not any(part.endswith("_cache") for part in path.parts)
    ]


# Taken apart, so that this file does not name what it forbids.
_DOT = r"\."
_HOSTS = [
    f"pypi{_DOT}org",
    f"pythonhosted{_DOT}org",
    f"(deb|security|ftp|snapshot|cdn){_DOT}debian{_DOT}org",
    f"npmjs{_DOT}(org|com)",
]
_PATHS = [r"(?<![\w.})\]-])/(work|root)/\w", r"/tmp/(bash_jobs|claude)"]
FORBIDDEN = re.compile("|".join(_HOSTS + _PATHS).encode())


def test_no_file_names_a_registry_or_one_machine() -> None:
    """Where packages come from, and where this tree lies, is not ours to commit."""
    found = []
    for path in _committed():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if hit := FORBIDDEN.search(line):
                where = path.relative_to(ROOT)
                found.append(f"{where}:{number}: {hit.group().decode()}")
    assert not found, "\n".join(found)


def _codes() -> set[str]:
    """Every code in the error tree."""
    errors = importlib.import_module("sealift.core.errors")
    codes: set[str] = set()
    waiting: list[type] = [errors.SealiftError]
    while waiting:
        one = waiting.pop()
        waiting.extend(one.__subclasses__())
        code = one.__dict__.get("code")
        if isinstance(code, str) and code:
            codes.add(code)
    return codes


def test_every_error_code_is_documented() -> None:
    """docs/api.md lists each code in backquotes: people search for them."""
    codes = _codes()
    assert codes, "no class of core/errors.py has a code"
    page = (ROOT / "docs/api.md").read_text("utf-8")
    missing = sorted(code for code in codes if f"`{code}`" not in page)
    assert not missing


_RELEASED = re.compile(r"^## .*?(\d{4}-\d\d-\d\d)\s*$", re.MULTILINE)


def _released(changelog: str) -> list[datetime]:
    """The dates of the releases, as `## 1.2.0 - 2026-12-24` says them."""
    dates = _RELEASED.findall(changelog)
    return [datetime.fromisoformat(date).replace(tzinfo=UTC) for date in dates]


def test_the_agent_knows_when_it_was_made() -> None:
    """`BUILD_TIME` is no older than the newest release of the changelog, and is past.

    No device believes in an earlier time, so a stale one lets old metadata live, and
    one in the future lets good metadata expire.
    """
    day = datetime(2026, 12, 24, tzinfo=UTC)
    assert _released("## Unreleased\n\n## [0.2.0] - 2026-12-24\n") == [day]
    released = _released((ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert max([*released, BUILD_TIME]) == BUILD_TIME
    assert SystemClock().now() > BUILD_TIME
