"""The delta in `docs/formats.md` is one, byte for byte."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from sealift.core.container import Op
from sealift.core.delta import Extent
from sealift.core.merkle import tree_root
from sealift.core.types import Container
from tests.containers import Case, describe, pack_delta

PAGE = Path(__file__).resolve().parents[3] / "docs/formats.md"
BASE = b"The quick brown fox jumps over the lazy dog"
IMAGE = b"The quick brown cat jumps over the lazy dogs.\0\0\0"
HEAD = 210


def printed() -> bytes:
    """The container as the page has it, each row where it says."""
    _before, _title, rest = PAGE.read_text("utf-8").partition("### Example: a delta")
    raw = b""
    for at, row in re.findall(
        r"^([0-9a-f]{2})  ((?:[0-9a-f]{2}(?: {1,2}|$))+)", rest, re.MULTILINE
    ):
        if at == "00" and raw:
            break
        assert int(at, 16) == len(raw)
        raw += bytes.fromhex(row)
    return raw


def test_the_printed_delta_is_read() -> None:
    """The shipped reader makes the new sentence of the old one and these bytes."""
    raw = printed()
    container = Container(
        "x.delta",
        len(raw),
        sha256(raw).digest(),
        HEAD,
        sha256(raw[:HEAD]).digest(),
        len(BASE),
        sha256(BASE).digest(),
    )
    artifact = describe(IMAGE, tree_root([sha256(IMAGE).digest()]))
    assert Case("page", artifact, container, raw, base=BASE).read() == IMAGE


def test_the_printed_delta_is_what_is_written() -> None:
    """The shipped writer makes these bytes of the ops the page tells of."""
    extents = [
        Extent(Op.COPY, 16, 0),
        Extent(Op.DELTA, 3, 16),
        Extent(Op.COPY, 24, 19),
        Extent(Op.REPLACE, 2),
        Extent(Op.ZERO, 3),
    ]
    assert pack_delta("page", BASE, IMAGE, [extents]).raw == printed()
