"""What an image is judged by, and the words a judgement is made of.

A rule is a function of a :class:`Case` that gives findings; the rules are in
``advice``, ``compressed`` and ``builds``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from sealift.payload.look.survey import Survey, Tree, Volume

LISTED: Final = 8
"""Files or regions named in one finding."""
NOTABLE: Final = 0.01
"""The share of an image from which something is worth a warning."""
MOSTLY: Final = 0.5


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Such an image cannot be installed."""
    WARNING = "warning"
    """Updates cost a good part more than they need to."""
    NOTE = "note"
    """Worth knowing; costs little."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. ``code`` is stable; ``where`` names files or offsets, largest
    first.
    """

    code: str
    severity: Severity
    cause: str
    cost: str
    cure: str
    where: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The finding as JSON values."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "cause": self.cause,
            "cost": self.cost,
            "cure": self.cure,
            "where": list(self.where),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """A delta that was made to see: bytes of both containers, and who carries them."""

    full: int
    delta: int
    carriers: tuple[tuple[str, int], ...]
    """Names of files or regions, and the bytes of the delta spent on them."""

    @property
    def share(self) -> float:
        """The delta's part of the full container."""
        return self.delta / self.full


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known. Without ``base`` one build cannot be told from the next."""

    image: Survey
    base: Survey | None = None
    slot_size: int | None = None
    trial: Trial | None = None

    def pairs(self) -> Iterator[tuple[Volume, Volume]]:
        """Volumes of the image with those of the base in the same place."""
        before = self.base.volumes if self.base is not None else ()
        for new, old in zip(self.image.volumes, before, strict=False):
            if new.kind == old.kind:
                yield new, old


# ── words ────────────────────────────────────────────────────────────────────────────
def trees(case: Case) -> Iterator[tuple[Volume, Tree]]:
    """The ext4 file systems of the image."""
    for volume in case.image.volumes:
        if volume.tree is not None:
            yield volume, volume.tree


def tree_pairs(case: Case) -> Iterator[tuple[Tree, Tree]]:
    """Those of image and base that lie in the same place."""
    for new, old in case.pairs():
        if new.tree is not None and old.tree is not None:
            yield new.tree, old.tree


def named(found: Counter[str]) -> tuple[str, ...]:
    """The largest of what was counted, with their bytes where these are known."""
    listed = [
        f"{amount(count)} {name}" if count else name
        for name, count in found.most_common(LISTED)
    ]
    more = len(found) - len(listed)
    return (*listed, f"and {more} more") if more > 0 else tuple(listed)


def percent(share: float) -> str:
    """A share for a human."""
    return f"{100 * share:.1f} %"


def amount(count: int) -> str:
    """Bytes for a human."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
