"""Takes into the committed corpus what a run found, if it goes a new way through core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import sealift.core
from tests.fuzz.plain import CORPUS, corpus
from tests.fuzz.targets import TARGETS

CORE = str(Path(sealift.core.__path__[0]))
Step = tuple[str, int, int]


def keep(name: str, found: Path) -> int:
    """How many of the files in ``found`` are new to the corpus of a target."""
    known: set[Step] = set()
    for data in corpus(name):
        known |= way(name, data)
    new = 0
    for path in sorted(found.glob("*"), key=lambda path: path.stat().st_size):
        data = path.read_bytes()
        if steps := way(name, data) - known:
            known |= steps
            new += 1
            (CORPUS / name / sha256(data).hexdigest()[:16]).write_bytes(data)
    return new


def way(name: str, data: bytes) -> set[Step]:
    """Which lines of core follow on which, in one execution."""
    steps: set[Step] = set()

    def enter(frame: FrameType, _event: str, _value: Any) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        last = 0
        if not path.startswith(CORE):
            return None

        def line(frame: FrameType, event: str, _value: Any) -> Callable[..., Any]:
            nonlocal last
            if event in {"line", "return"}:
                steps.add((path, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        TARGETS[name](data)
    finally:
        sys.settrace(before)
    return steps
