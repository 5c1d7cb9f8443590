"""Debian packages of another architecture, and sources: fetched, unpacked, never run.

The machine's own apt does it with the machine's own mirrors and keys, in directories of
its own. Of the sources only ``deb`` need be named on the machine: ``deb-src`` follows.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sealift.core.errors import FailedTransferError
from sealift.sim import debian
from tests.bench import cache

ARCHITECTURE = "arm64"
_ETC = Path("/etc/apt")


def _say(_text: str) -> None:
    pass


def unpacked(names: Sequence[str], without: Sequence[str] = ()) -> Path:
    """A tree of the packages and all they need, but not of those ``without``.

    Kept for as long as the names are the same: what Debian mends since then is not
    looked for. Whoever wants it removes the cache.
    """

    def build(into: Path) -> None:
        with tempfile.TemporaryDirectory() as desk:
            for deb in _download(names, without, Path(desk)):
                debian.unpack(deb, into)

    key = cache.digest(ARCHITECTURE, sorted(names), sorted(without))
    return cache.built(f"debian-{ARCHITECTURE}", key, build)


def _download(names: Sequence[str], without: Sequence[str], desk: Path) -> list[Path]:
    home = cache.home() / f"apt-{ARCHITECTURE}"
    with debian.alone(home):
        apt = _foreign_apt(home)
        if not apt.has_lists():
            apt.update()
        try:
            return _closure(apt, names, without, desk)
        except FailedTransferError:
            apt.update()  # lists grow stale: what they name may have left the mirror
            return _closure(apt, names, without, desk)


def _closure(
    apt: debian.Apt, names: Sequence[str], without: Sequence[str], desk: Path
) -> list[Path]:
    found = apt.closure(list(names))
    return apt.download([one.spec for one in found if one.name not in without], desk)


def _foreign_apt(home: Path) -> debian.Apt:
    nothing = home / "status"
    nothing.touch()
    words = {"APT::Architecture": ARCHITECTURE, "APT::Architectures": ARCHITECTURE}
    return debian.Apt(home, _say, installed=nothing, options=words)


# ── sources ──────────────────────────────────────────────────────────────────────────
def source(name: str, into: Path) -> str:
    """The newest source package of the machine's release, in ``into``; its version."""
    home = cache.home() / "apt-sources"
    parts = home / "sources.d"
    with debian.alone(home):
        parts.mkdir(exist_ok=True)
        for path in _source_lists():
            (parts / path.name).write_text(_as_sources(path), "utf-8")
        places = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": parts}
        words = {key: str(place) for key, place in places.items()}
        debian.Apt(home, _say, options=words).download_source(name, into)
    (described,) = into.glob("*.dsc")
    return described.stem.partition("_")[2]


def _source_lists() -> Iterator[Path]:
    found = [_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))]
    for path in found:
        if path.is_file() and path.suffix in {".list", ".sources"}:
            yield path


def _as_sources(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".sources":
        return re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
    return re.sub(r"(?m)^deb(-src)?(?=\s)", "deb-src", text)
