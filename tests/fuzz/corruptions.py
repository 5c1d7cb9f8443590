"""Random corruptions of a delta: how many were refused, as what, and at what price."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random

from sealift.core.errors import SealiftError
from tests.containers import Case, parts, reframed, signed
from tests.fuzz.choices import Choices
from tests.fuzz.structure import seeds

SLACK = 64 * 1024
"""Bytes: an error with its traceback weighs something, too."""


@dataclass
class Report:
    """``codes`` counts refusals, ``same`` the corrupted streams that still hold the
    vendor's image: LZMA2 has more than one way to write the same bytes.
    """

    count: int = 0
    same: int = 0
    wrong: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    clean_peak: int = 0
    peak: int = 0

    @property
    def ok(self) -> bool:
        """None accepted, none crashed, no more memory than the sound delta takes."""
        return not self.wrong and self.peak <= self.clean_peak + SLACK

    def __str__(self) -> str:
        refused = ", ".join(f"{n} {code}" for code, n in self.codes.most_common())
        return (
            f"{self.count} corruptions: {self.codes.total()} refused ({refused}), "
            f"{self.same} without effect, {len(self.wrong)} accepted or crashed; "
            f"peak {self.peak} B, sound {self.clean_peak} B"
        )


def run(count: int, seed: int = 0) -> Report:
    """Corrupt a delta of four segments ``count`` times and read it each time.

    A third as a mirror would, whom no digest fits; the others in a frame or the head
    and signed again, as a thief of the online keys would.
    """
    case, rng, report = seeds()[1].case, Random(seed), Report()
    tracemalloc.start()
    report.clean_peak = _peak(case, report)
    report.same = 0
    for _ in range(count):
        spoilt = _spoilt(case, rng)
        report.peak = max(report.peak, _peak(spoilt, report))
    report.count = count
    tracemalloc.stop()
    return report


def _peak(case: Case, report: Report) -> int:
    """Read it and count what came of it; the memory this took."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        image = case.read()
    except SealiftError as error:
        report.codes[error.code] += 1
    except Exception as error:  # noqa: BLE001  what must not happen is counted
        report.wrong.append(f"crash {error!r}: {case.raw.hex()}")
    else:
        if sha256(image).digest() == case.artifact.sha256:
            report.same += 1
        else:
            report.wrong.append(f"accepted: {case.raw.hex()}")
    return tracemalloc.get_traced_memory()[1] - before


def _spoilt(case: Case, rng: Random) -> Case:
    choices = Choices(rng.randbytes(200))
    length = case.container.head_length
    match rng.randrange(6):
        case 0 | 1:
            # What lies behind the signed length is never asked for.
            spoilt = _changed(choices, case.raw)
            while spoilt.startswith(case.raw):
                spoilt = _changed(choices, case.raw)
            return replace(case, raw=spoilt)
        case 2:
            return signed(case, _changed(choices, case.raw[:length]), case.raw[length:])
        case _:
            frames = parts(case)[2]
            index = rng.choice([at for at, found in enumerate(frames) if found])
            return reframed(case, index, _changed(choices, frames[index]))


def _changed(choices: Choices, raw: bytes) -> bytes:
    found = raw
    while found == raw:
        found = choices.edited(found)
    return found
