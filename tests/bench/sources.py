"""Debian source packages, without ``deb-src`` on the machine and without root.

The machine's own apt does it with the machine's own mirrors and keys, in directories of
its own, where each of the machine's sources is one of sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sealift.sim import debian
from tests.bench import cache

_ETC = Path("/etc/apt")


def fetch(name: str, into: Path) -> str:
    """The newest source package of the machine's release, in ``into``; its version."""
    home = cache.home() / "apt-sources"
    parts = home / "sources.d"
    with debian.alone(home):
        parts.mkdir(exist_ok=True)
        for path in _lists():
            (parts / path.name).write_text(_as_sources(path), "utf-8")
        places = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": parts}
        words = {key: str(place) for key, place in places.items()}
        debian.Apt(home, options=words).download_source(name, into)
    (described,) = into.glob("*.dsc")
    return described.stem.partition("_")[2]


def _lists() -> Iterator[Path]:
    found = [_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))]
    for path in found:
        if path.is_file() and path.suffix in {".list", ".sources"}:
            yield path


def _as_sources(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".sources":
        return re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
    return re.sub(r"(?m)^deb(-src)?(?=\s)", "deb-src", text)
