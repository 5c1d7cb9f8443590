"""What is slow to build is built once: directories named by the digest of what made them.

Below ``$XDG_CACHE_HOME/sealift/bench`` (``~/.cache`` without it). Several processes may
want the same at once: each builds under a name of its own, and the first to be whole
stays. Nothing in here is needed: remove it and it is built again. What nobody asked for
in a day is removed when something of its name is built anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_UNUSED_SECONDS = 86_400


def home() -> Path:
    """Where everything of the benches is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sealift/bench"


def digest(*facts: object) -> str:
    """Lower hex SHA-256 of what decides a result: JSON values, bytes, paths of files.

    Of a file the content counts, of a directory every file in it with its name.
    """
    told = hashlib.sha256()
    for fact in facts:
        for piece in _pieces(fact):
            told.update(len(piece).to_bytes(8, "big") + piece)
    return told.hexdigest()


def _pieces(fact: object) -> list[bytes]:
    if isinstance(fact, bytes):
        return [fact]
    if isinstance(fact, Path):
        if fact.is_dir():
            inside = sorted(p for p in fact.rglob("*") if p.is_file())
            pairs = [(str(p.relative_to(fact)).encode(), p) for p in inside]
            return [piece for name, p in pairs for piece in (name, p.read_bytes())]
        return [fact.read_bytes()]
    return [json.dumps(fact, sort_keys=True).encode()]


def built(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The directory ``NAME-KEY``; ``build`` fills it if it is not there.

    One at a time builds it, others wait: two builds side by side take twice as long.
    """
    place = home() / f"{name}-{key[:20]}"
    if place.is_dir():
        os.utime(place)
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return place
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
        try:
            build(fresh)
            fresh.chmod(0o755)
            fresh.replace(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _forget(place, name)
    return place


def _forget(newest: Path, name: str) -> None:
    """Remove what the same builder made and nobody used for a day: inputs change."""
    for other in newest.parent.glob(f"{name}-*"):
        age = newest.stat().st_mtime - other.stat().st_mtime
        if len(other.name) == len(newest.name) and age > _UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
