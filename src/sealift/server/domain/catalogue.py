"""What the Image repository lists now, and what of it may be ordered for a component.

The server only ever orders what the vendor's offline keys list (D10). Devices check
the same again; this keeps an honest server from ordering what they would refuse.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from sealift.core.errors import ConflictError
from sealift.repo.image import artifacts
from sealift.repo.repository import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.core.types import Artifact
    from sealift.repo.entries import Listed

__all__ = ["catalogue", "orderable"]


@lru_cache(maxsize=2)
def catalogue(targets: bytes) -> Mapping[str, Listed]:
    """Everything an Image Targets file lists, by path; its signatures were checked.

    Raises:
        MalformedError, LimitError: it is not such a file.
    """
    return artifacts(read(targets, Targets).signed)


def orderable(
    wanted: Artifact,
    listed: Mapping[str, Listed],
    *,
    hardware_id: str,
    release_counter: int,
) -> Artifact:
    """``wanted``, if it may be ordered for a component now (D10).

    Raises:
        ConflictError: not listed, listed differently, for other hardware, or below the
            release counter the component reported.
    """
    found = listed.get(wanted.name)
    if found is None or found.artifact != wanted:
        raise ConflictError(
            f"{wanted.name} is not in the Image repository any more",
            hint="publish Image Targets that list it",
        )
    if hardware_id not in wanted.hardware_ids:
        raise ConflictError(f"{wanted.name} is not for hardware {hardware_id}")
    if wanted.release_counter < release_counter:
        raise ConflictError(
            f"{wanted.name} has release counter {wanted.release_counter}, the device "
            f"is at {release_counter}",
            hint="a deliberate downgrade is signed anew with a higher counter",
        )
    return wanted
