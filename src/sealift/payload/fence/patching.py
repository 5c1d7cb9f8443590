"""Patches for microcontrollers made behind the fence: two processes, and then a file.

One process makes the patch, a fresh one applies it by both decoders (``mcu``); limits,
progress and cancelling are those of deltas (``process``).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.core.errors import RefusedError
from sealift.core.types import Patch
from sealift.payload.fence.job import Job
from sealift.payload.fence.process import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.payload.mcu import Recipe

__all__ = ["make_patch"]


def make_patch(
    job: Job,
    recipe: Recipe,
    name: str,
    out: Path,
    *,
    cancel: Callable[[], bool] = lambda: False,
) -> Patch:
    """Make the patch ``out`` between the images of ``job``, checked; its facts.

    ``out`` appears whole or not at all. Whether it saves enough says :func:`mcu.worth`.

    Raises:
        RefusedError: an image is sealed, and a patch never is. DeltaError: no patch
        came of it. MissingToolError: ``detools`` is not installed. LimitError,
        PatchError: no patch between these images is allowed. PayloadError, FormatError,
        ConfigError: a source is not what it should be. SpaceError: no room.
    """
    if job.base.content_key or job.new.content_key:
        raise RefusedError("a patch of sealed images would show what they hide")
    recipe.check()
    deadline = time.monotonic() + job.limits.seconds
    with tempfile.TemporaryDirectory(prefix=".patch-", dir=out.parent) as scratch:
        file = Path(scratch) / "patch"
        child = Child(job, Path(scratch), deadline, lambda *_: None, cancel)
        request = {
            "base": job.base.to_json(),
            "new": job.new.to_json(),
            "recipe": recipe.to_json(),
            "name": name,
            "out": str(file),
        }
        made = child.run("patch", request)
        child.run("apply-patch", {**request, "patch": made})
        file.replace(out)
    return Patch.from_json(made)
