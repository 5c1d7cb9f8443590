"""Make a delta only to see: how large it is, and which files carry its bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sealift.payload.images import opened
from sealift.payload.look.carriers import carriers
from sealift.payload.look.findings import Trial
from sealift.payload.making import Limits, Quality, Request, full_length, make_container
from sealift.payload.rebuild import Source

if TYPE_CHECKING:
    from sealift.payload.look.owners import Owners
    from sealift.payload.making import Tell


def try_delta(base: Path, new: Path, owners: Owners, memory: int, tell: Tell) -> Trial:
    """The delta between two images, made quickly and thrown away.

    Raises:
        DeltaError: it cannot be made. Else as ``make_container``.
    """
    quality = Quality.QUICK
    with TemporaryDirectory(prefix="sealift-trial-") as name:
        out = Path(name) / "trial.delta"
        request = Request(new, base, out, Limits(memory), quality)
        made = make_container(request, compare=False, tell=tell)
        with opened(out) as file:
            found = carriers(Source(file.read_at, made.facts), owners)
    return Trial(full_length(new, quality, tell), made.facts.container.length, found)
