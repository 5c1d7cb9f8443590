"""Invariant 11: each extra works alone, and the agent needs none.

An extra "alone" is a fresh process in which every distribution that the extra
does not bring cannot be imported, as if it were not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "project"
]

# Runs first in every process here: hides what the extra does not bring. Site
# packages may have loaded things already (.pth files); those are not ours.
HIDE = """
import importlib, json, pkgutil, sys
hidden = set(json.loads(sys.argv.pop(1)))
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)
sys.meta_path.insert(0, Hide())
before = set(sys.modules)
def new():
    return {name.partition(".")[0] for name in set(sys.modules) - before}
def ours():
    return {n.split(".")[1] for n in sys.modules if n.startswith("sealift.")}
def walk(package):
    found = importlib.import_module(package)
    for info in pkgutil.walk_packages(found.__path__, package + "."):
        importlib.import_module(info.name)
"""


@cache
def _provided() -> dict[str, set[str]]:
    """Distribution to the top-level modules it brings."""
    brings: dict[str, set[str]] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            brings.setdefault(canonicalize_name(name), set()).add(module)
    return brings


def _closure(extra: str) -> set[str]:
    """The distributions `pip install sealift[extra]` would bring."""
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting += [Requirement(f"sealift[{extra}]")] if extra else []
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "sealift":
            texts = [t for e in extras for t in PROJECT["optional-dependencies"][e]]
        else:
            texts = _requires(name)
        for requirement in map(Requirement, texts):
            marker = requirement.marker
            if not marker or any(marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append(requirement)
    return {name for name, _ in seen} - {"sealift"}


def _requires(name: str) -> list[str]:
    """Nothing for what is not installed: `mcu` may need a compiler that is not here."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _hidden(extra: str) -> set[str]:
    """The top-level modules that an installation of `extra` lacks."""
    present = _closure(extra)
    kept = {module for name in present for module in _provided().get(name, ())}
    every = {module for modules in _provided().values() for module in modules}
    return every - kept - {"sealift"}


def _alone(extra: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where only `extra` is installed."""
    return subprocess.run(
        [sys.executable, "-I", "-c", HIDE + code, json.dumps(sorted(_hidden(extra)))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _answer(extra: str, code: str) -> Any:
    done = _alone(extra, code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


NEEDS = [
    # extra, packages of ours that must import with it, distributions that must not
    ("", ["core", "agent"], ["typer", "httpx2", "tuf", "starlette", "msgspec"]),
    ("client", ["client"], ["tuf", "securesystemslib", "starlette", "msgspec"]),
    (
        "sign",
        ["payload", "repo", "sign"],
        ["detools", "httpx2", "starlette", "uvicorn", "msgspec"],
    ),
    ("cli", ["client", "sign"], ["starlette", "uvicorn", "msgspec"]),
    ("server", ["payload", "repo", "server"], ["detools", "httpx2"]),
    ("pkcs11", ["agent"], ["typer", "tuf", "starlette"]),
    ("mcu", ["core"], ["hdiffpatch", "typer", "tuf", "starlette"]),
    ("secureboot", ["core"], ["typer", "tuf", "starlette"]),
    ("sim", ["agent", "client", "repo", "server", "sign", "sim"], ["pkcs11"]),
]


def test_every_extra_is_in_the_matrix() -> None:
    """A new extra gets its row."""
    assert {extra for extra, _, _ in NEEDS} == {"", *PROJECT["optional-dependencies"]}


@pytest.mark.parametrize(
    ("extra", "packages", "absent"), NEEDS, ids=[row[0] or "base" for row in NEEDS]
)
def test_an_extra_alone_imports_what_it_is_for(
    extra: str, packages: list[str], absent: list[str]
) -> None:
    """Every module of its packages imports, and what it must not bring is not there."""
    for module in absent:
        assert module in _hidden(extra), f"{module} comes with [{extra}]"
    for package in packages:
        done = _alone(extra, f"walk('sealift.{package}')")
        assert done.returncode == 0, f"sealift.{package}: {done.stderr}"


def test_the_agent_needs_no_third_party_but_cryptography() -> None:
    """Importing all of sealift.agent loads the standard library and cryptography."""
    code = """
walk("sealift.agent")
allowed = {"sealift", "cryptography", "_cffi_backend", "cffi"}
print(json.dumps(sorted(new() - allowed - set(sys.stdlib_module_names))))
"""
    loaded = _answer("sim", code)  # all is installed: nothing may be picked up softly
    # Hooks of the standard library and of cryptography's compiled part.
    modules = {m for names in _provided().values() for m in names}
    assert [name for name in loaded if name in modules] == []


def test_starting_the_agent_loads_no_cryptography() -> None:
    """Polling an idle device verifies nothing, so the memory is not spent."""
    code = """
import sealift.agent.__main__
print(json.dumps("cryptography" in sys.modules))
"""
    assert _answer("", code) is False


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_loads_no_package_of_ours_but_cli(flag: str) -> None:
    """`sealift --help` answers at once, however much is installed."""
    code = f"""
sys.argv = ["sealift", {flag!r}]
from sealift.cli.main import main
try:
    status = main()
except SystemExit as end:
    status = end.code
assert not status, status
print()
print(json.dumps(sorted(ours())))
"""
    loaded = _answer("cli", code)
    assert {name for name in loaded if not name.startswith("_")} <= {"cli"}


def test_the_base_install_names_the_extra_to_install() -> None:
    """`sealift` without extras fails politely, and says what to install."""
    code = """
sys.argv = ["sealift", "release", "status"]
from sealift.cli.main import main
sys.exit(main())
"""
    done = _alone("", code)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    assert "sealift[" in said


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """Two programs, every module, types and licence; no tests, no tools."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(
        [*build, "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = f"sealift-{PROJECT['version']}.dist-info"
        programs = archive.read(f"{about}/entry_points.txt").decode()
    modules = {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")
    }
    assert modules <= names
    assert {name.partition("/")[0] for name in names} == {"sealift", about}
    assert {"sealift/py.typed", f"{about}/licenses/LICENSE"} <= names
    for program, target in PROJECT["scripts"].items():
        assert f"{program} = {target}" in programs
