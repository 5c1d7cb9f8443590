"""Deltas made by ``sealift.payload`` in processes of its own, from stored blobs."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.errors import SealiftError
from sealift.payload.delta.make import Limits, Quality
from sealift.payload.fence.job import Job, SealWith, Source
from sealift.payload.fence.patching import make_patch
from sealift.payload.fence.process import run
from sealift.payload.mcu import patch_name, worth
from sealift.server.ports import Made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sealift.core.types import Patch
    from sealift.server.ports import Chance, Side, Task

__all__ = ["ProcessMaker", "emptied"]

_SALT = 24
_log = logging.getLogger("sealift.server")


@dataclass(frozen=True, slots=True)
class ProcessMaker:
    """The :class:`~sealift.server.ports.DeltaMaker` of one host.

    ``blobs`` is the directory of containers by digest, ``scratch`` one on a disk with
    room for two images.
    """

    blobs: Path
    scratch: Path
    limits: Limits
    quality: Quality
    chance: Chance

    def make(
        self,
        task: Task,
        *,
        progress: Callable[[str, int], None],
        cancelled: Callable[[], bool],
    ) -> Made:
        """Make one delta; see the port."""
        out = self.scratch / f"{task.number}.delta"

        def tick(step: str, done: int, total: int) -> None:
            progress(step, done * 100 // total if total else 100)

        report = run(self._job(task), out, progress=tick, cancel=cancelled)
        container = report.packed.container(task.name)
        patch = self._patch(task, cancelled)
        return Made(container, out, int(report.cpu_seconds * 1000), patch)

    def _patch(
        self, task: Task, cancelled: Callable[[], bool]
    ) -> tuple[Patch, Path] | None:
        """The patch, if one is wanted and worth it; without one, the image serves."""
        recipe, new = task.recipe, task.new.artifact
        if recipe is None:
            return None
        name = patch_name(new.sha256, task.base.artifact.sha256, recipe.kind)
        out = self.scratch / f"{task.number}.patch"
        try:
            found = make_patch(self._job(task), recipe, name, out, cancel=cancelled)
        except SealiftError as error:
            _log.warning("patch %s: %s [%s]", name, error, error.code)
            return None
        if worth(found, new.length):
            return found, out
        out.unlink()
        return None

    def _job(self, task: Task) -> Job:
        key = task.new.content_key
        seal = key and SealWith(key, self.chance.token_bytes(_SALT))
        return Job(
            base=self._source(task.base),
            new=self._source(task.new),
            limits=self.limits,
            quality=self.quality,
            segment_size=task.new.artifact.segment_size,
            seal=seal or None,
        )

    def _source(self, side: Side) -> Source:
        place = self.blobs / side.full.sha256.hex()
        return Source(place, side.artifact, side.full, side.content_key)


def emptied(directory: Path) -> Path:
    """A directory for scratch files, without what a killed process left in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory
