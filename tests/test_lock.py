"""The locks: no addresses, one truth in two forms, and all of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import without_addresses

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
UV_LOCK = (ROOT / "uv.lock").read_text("utf-8")
PINNED = (ROOT / "requirements.lock").read_text("utf-8")
NATIVE = (ROOT / "native.lock").read_text("utf-8")

ADDRESS = re.compile(
    r"://|\b(?:www\.)?[a-z0-9-]+\.(?:org|com|io|net)/|index-url", re.IGNORECASE
)


def _locked() -> dict[str, tuple[str, frozenset[str]]]:
    """Name to version and hashes, as uv.lock has it; without Sealift itself."""
    found = {}
    for package in tomllib.loads(UV_LOCK)["package"]:
        if package["name"] == PROJECT["project"]["name"]:
            continue
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        hashes = frozenset(file["hash"] for file in files)
        found[package["name"]] = (package["version"], hashes)
    return found


def _pinned() -> dict[str, tuple[str, frozenset[str]]]:
    """The same from what pip installs: requirements.lock and native.lock."""
    found = {}
    for entry in (PINNED + NATIVE).replace("\\\n", " ").splitlines():
        if not entry or entry.startswith("#"):
            continue
        head, *hashes = re.split(r"\s--hash=", entry)
        requirement = Requirement(head.strip())
        (exact,) = requirement.specifier
        assert exact.operator == "=="
        found[requirement.name] = (exact.version, frozenset(map(str.strip, hashes)))
    return found


def _wanted() -> list[tuple[str, Requirement]]:
    """Each direct dependency, and the extra or group that asks for it."""
    project = PROJECT["project"]
    lists = {
        "": project["dependencies"],
        **project["optional-dependencies"],
        **PROJECT["dependency-groups"],
    }
    return [
        (asks, Requirement(text)) for asks, texts in lists.items() for text in texts
    ]


def test_no_lock_names_an_address() -> None:
    """A hash says what a file is; where it comes from is the machine's business."""
    for text in (UV_LOCK, PINNED, NATIVE):
        assert not [line for line in text.splitlines() if ADDRESS.search(line)]


def test_both_locks_hold_the_same() -> None:
    """The same packages, versions and hashes, for uv and for pip."""
    assert _locked() == _pinned()
    assert all(hashes for _, hashes in _pinned().values())


def test_the_locks_satisfy_pyproject() -> None:
    """`make lock` was run after the last change of a dependency."""
    pinned = _pinned()
    for asks, requirement in _wanted():
        name = canonicalize_name(requirement.name)
        if name == PROJECT["project"]["name"]:
            continue
        assert name in pinned, f"{name} (for {asks or 'the base'}) is not locked"
        assert pinned[name][0] in requirement.specifier, f"{name}: run `make lock`"


def test_uv_lock_was_made_from_this_pyproject() -> None:
    """What uv.lock says of Sealift itself is what pyproject.toml says."""
    (own,) = (p for p in tomllib.loads(UV_LOCK)["package"] if p["name"] == "sealift")
    listed = [
        *own["metadata"]["requires-dist"],
        *(one for group in own["metadata"]["requires-dev"].values() for one in group),
    ]
    recorded = sorted(
        (one["name"], str(Requirement(f"x{one.get('specifier', '')}").specifier))
        for one in listed
    )
    wanted = sorted(
        (canonicalize_name(one.name), str(one.specifier)) for _, one in _wanted()
    )
    assert recorded == wanted


def test_every_range_has_two_ends() -> None:
    """A lower bound that was tried, and an upper bound before the next surprise."""
    for _, requirement in _wanted():
        if requirement.name != PROJECT["project"]["name"]:
            operators = {one.operator for one in requirement.specifier}
            assert operators == {">=", "<"}, str(requirement)


def test_addresses_are_dropped_and_nothing_else() -> None:
    """File name, hash and size stay; doing it again changes nothing."""
    lock = (
        'source = { registry = "https://mirror.example/simple" }\n'
        'sdist = { url = "https://files.example/a/b/x-1.tar.gz", hash = "sha256:00", '
        'size = 7, upload-time = "2026-01-01T00:00:00Z" }\n'
        'dependencies = [{ name = "y" }]\n'
    )
    clean = without_addresses(lock)
    assert clean == (
        'source = { registry = "." }\n'
        'sdist = { filename = "x-1.tar.gz", hash = "sha256:00", size = 7 }\n'
        'dependencies = [{ name = "y" }]\n'
    )
    assert without_addresses(clean) == clean
