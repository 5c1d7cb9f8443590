"""Rows C, D and A-21 can fail: without the check a row is about, it does not hold."""

from __future__ import annotations

import importlib
import lzma
import os
from collections.abc import Callable
from typing import Any

import pytest

from sealift.agent.machine import Done
from sealift.agent.slot import WorkFiles
from sealift.core import encryption
from sealift.core.delta import Base
from sealift.core.payload import Frame, _decode
from sealift.core.types import Instruction
from sealift.sim.attacks.catalogue import row
from sealift.sim.attacks.run import attacks, run_row


def _nothing(*_: object, **__: object) -> None:
    """A check that finds nothing wrong."""


def _lax_unpack(packed: bytes, length: int) -> bytes:
    """As much as comes out, whatever is missing or left over."""
    if len(packed) >= length:
        return packed[:length]
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    try:
        return decoder.decompress(packed, length).ljust(length, b"\0")
    except lzma.LZMAError:
        return bytes(length)


def _decoded(frame: Frame, base: Base | None = None) -> bytes:
    """A segment that nobody compares with the signed list."""
    return _decode(frame.segment, frame.raw, base)


def _lax_digest(found: Any, name: str, _size: int) -> bytes:
    """Hex as people write it."""
    return bytes.fromhex(str(found.get(name)).strip())


def _any_name(name: str, sha256: bytes) -> str:
    """Where a container lies, by whatever name it has."""
    return f"director/targets/{sha256.hex()}.{name}"


def _short(state: Any, order: Instruction) -> bool:
    """What is wanted, by twelve digits of its digest."""
    known = [state.installed, state.refused]
    return all(it is None or it.sha256[:6] != order.artifact.sha256[:6] for it in known)


def _done(*_: object) -> Done:
    """A trial that nobody looks at."""
    return Done()


def _no_floor(*_: object) -> int:
    return 0


class NullCipher:
    """Leaves everything as it is, with a tag that proves nothing."""

    def encrypt(self, _nonce: bytes, plain: bytes, _more: None) -> bytes:
        return plain + bytes(encryption.TAG)

    def decrypt(self, _nonce: bytes, sealed: bytes, _more: None) -> bytes:
        return sealed[: -encryption.TAG]


class NullChunks(encryption._Chunks):
    """A sealed file whose chunks are not."""

    def __init__(self, content_key: bytes, context: bytes, salt: bytes) -> None:
        super().__init__(content_key, context, salt)
        self.cipher = NullCipher()  # type: ignore[assignment]


class ByPath:
    """A work file that is found by its path each time."""

    def __init__(self, path: str, opened: Any) -> None:
        self._path = path
        self._opened = opened

    def read(self, offset: int, length: int) -> bytes:
        with open(self._path, "rb") as file:
            return os.pread(file.fileno(), length, offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def _by_path(files: Any, name: str, length: int) -> Any:
    return ByPath(f"{files._directory}/{name}", OPEN(files, name, length))


OPEN = WorkFiles.open
Mutant = tuple[str, str, Callable[..., Any], tuple[str, ...]]
MUTANTS: list[Mutant] = [
    ("agent.slot.WorkFiles", "open", _by_path, ("C-01",)),
    ("core.container", "_check_facts", _nothing, ("C-03", "C-05", "C-09")),
    ("core.container", "_check_digest", _nothing, ("C-08",)),
    ("agent.payload.line", "open_frame", _decoded, ("C-14",)),
    ("core.payload", "unpack", _lax_unpack, ("C-14", "C-15")),
    ("agent.payload.stream", "target_path", _any_name, ("C-07",)),
    ("core.encryption", "_Chunks", NullChunks, ("A-21", "C-16")),
    ("core.types", "digest", _lax_digest, ("C-12",)),
    ("agent.shell", "wants", _short, ("C-13",)),
    ("agent.install.ab.AbInstaller", "_reread", _nothing, ("D-01",)),
    ("agent.journal.Floors", "floor", _no_floor, ("D-04",)),
    ("agent.duties.Duties", "_check", _done, ("D-05", "D-06")),
    ("agent.files", "check_private", _nothing, ("D-10",)),
]


def _place(name: str) -> Any:
    """The module, or the class in a module, of that name."""
    module, _, member = f"sealift.{name}".rpartition(".")
    if member[0].isupper():
        return getattr(importlib.import_module(module), member)
    return importlib.import_module(f"{module}.{member}")


CASES = [
    pytest.param(*mutant[:3], attack_id, id=f"{mutant[1]}-{attack_id}")
    for mutant in MUTANTS
    for attack_id in mutant[3]
]


@pytest.mark.parametrize(("place", "name", "worse", "attack_id"), CASES)
def test_a_row_notices_that_its_check_is_gone(
    place: str,
    name: str,
    worse: Callable[..., Any],
    attack_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the check the row does not hold, and not because something crashed."""
    monkeypatch.setattr(_place(place), name, worse)
    found = row(attack_id)
    assert found is not None
    result = run_row(found, attacks()[attack_id])
    assert result.ok is False
    assert "crash" not in result.observed
