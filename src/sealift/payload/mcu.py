"""Patches for microcontrollers, made by ``detools`` and believed by nobody.

A :class:`Recipe` is what one type of microcontroller can decode. What :func:`make`
gives is checked by :func:`check` in a fresh process, by ``detools``' own decoder and by
the one a gateway reads it with, before it counts. The library is an extra (``mcu``) of
the desk and the server; a device has none of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from sealift.core import mcu
from sealift.core.errors import (
    DeltaCrashedError,
    DeltaWrongError,
    FormatError,
    InvalidConfigError,
    MissingToolError,
    PayloadError,
)
from sealift.core.types import Patch, PatchKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["WORTH", "Recipe", "check", "choose", "make", "patch_name", "worth"]

WORTH: Final = 0.8
"""A patch longer than this part of the image is not worth its risk and its flash wear;
the image itself is what crosses the link otherwise."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one type of microcontroller can decode.

    ``window`` and ``lookahead`` are heatshrink's, in bits; decoders are usually built
    for one pair. The sizes are bytes, for patches in place only: the flash that loader
    and patch may use, what is erased at a time, and the least the old image is moved.
    """

    kind: PatchKind
    window: int = 8
    lookahead: int = 7
    memory_size: int = 0
    segment_size: int = 0
    minimum_shift: int = 0

    def check(self) -> None:
        """Refuse a recipe by which no patch could be made.

        Raises:
            InvalidConfigError: with the reason.
        """
        in_place = self.kind is PatchKind.IN_PLACE
        sizes = (self.memory_size, self.segment_size, self.minimum_shift)
        if in_place != all(sizes) or (any(sizes) and not in_place):
            raise InvalidConfigError(
                "memory_size, segment_size, minimum_shift: all in place, else none",
                hint="they belong to detools-in-place-heatshrink, and it needs them",
            )
        try:
            mcu.check(self.facts("check", b"?", b"?"), 1)
        except (FormatError, PayloadError) as error:
            raise InvalidConfigError(f"no patch can be made so: {error}") from error

    def facts(self, name: str, base: bytes, patch: bytes) -> Patch:
        """What metadata says of ``patch``, made by this recipe from ``base``."""
        return Patch(
            kind=self.kind,
            name=name,
            length=len(patch),
            sha256=sha256(patch).digest(),
            base_length=len(base),
            base_sha256=sha256(base).digest(),
            window=self.window,
            lookahead=self.lookahead,
            memory_size=self.memory_size,
            segment_size=self.segment_size,
            shift_size=self._shift(len(base)),
        )

    def _shift(self, base_length: int) -> int:
        """As many segments as fit above the old image, not less than the minimum."""
        if self.kind is not PatchKind.IN_PLACE:
            return 0
        size = self.segment_size
        free = self.memory_size // size - -(-base_length // size)
        return max(free * size, self.minimum_shift)

    def to_json(self) -> dict[str, object]:
        """The recipe as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**found, "kind": PatchKind(found["kind"])})


# ── making and checking, each in a process of its own ────────────────────────────────
def make(base: bytes, new: bytes, recipe: Recipe) -> bytes:
    """The patch; not checked yet.

    Raises:
        MissingToolError: ``detools`` is not installed. LimitError, PatchError: no patch
        between these images is allowed. DeltaCrashedError: ``detools`` gave up.
    """
    detools, out = _library(), BytesIO()
    mcu.check(recipe.facts("patch", base, b"?"), len(new))
    sizes: dict[str, object] = {"patch_type": "sequential"}
    if recipe.kind is PatchKind.IN_PLACE:
        sizes = {
            "patch_type": "in-place",
            "memory_size": recipe.memory_size,
            "segment_size": recipe.segment_size,
            "minimum_shift_size": recipe.minimum_shift,
        }
    try:
        detools.create_patch(
            BytesIO(base),
            BytesIO(new),
            out,
            compression="heatshrink",
            heatshrink_window_sz2=recipe.window,
            heatshrink_lookahead_sz2=recipe.lookahead,
            use_mmap=False,
            **sizes,
        )
    except detools.Error as error:
        raise DeltaCrashedError(f"detools: {error}") from error
    return out.getvalue()


def check(base: bytes, raw: bytes, patch: Patch, new: bytes) -> None:
    """Return if both decoders make ``new`` out of ``base``.

    Raises:
        MissingToolError: ``detools`` is not installed. DeltaWrongError: one does not.
    """
    detools = _library()
    try:
        ours = b"".join(
            mcu.decode([raw], patch, len(new), lambda at, size: base[at : at + size])
        )
        theirs = _applied(detools, base, raw, patch, len(new))
    except (FormatError, PayloadError, detools.Error) as error:
        raise DeltaWrongError(f"the patch does not decode: {error}") from error
    if ours != new or theirs != new:
        raise DeltaWrongError("the patch makes another image")


def _applied(
    detools: ModuleType, base: bytes, raw: bytes, patch: Patch, length: int
) -> bytes:
    if patch.kind is PatchKind.SEQUENTIAL:
        out = BytesIO()
        detools.apply_patch(BytesIO(base), BytesIO(raw), out)
        return out.getvalue()
    memory = BytesIO(base.ljust(patch.memory_size, b"\xff"))
    detools.apply_patch_in_place(memory, BytesIO(raw))
    return memory.getvalue()[:length]


def _library() -> ModuleType:
    try:
        import detools
    except ImportError as error:
        raise MissingToolError(
            "patches for microcontrollers need detools",
            hint="pip install 'sealift[mcu]' (builds from source: needs a C compiler)",
        ) from error
    found: ModuleType = detools
    return found


# ── which ────────────────────────────────────────────────────────────────────────────
def patch_name(new_sha256: bytes, base_sha256: bytes, kind: PatchKind) -> str:
    """What the patch from one image to another is called on the wire."""
    tail = "inplace" if kind is PatchKind.IN_PLACE else "patch"
    return f"{new_sha256.hex()}-{base_sha256.hex()}.{tail}"


def worth(patch: Patch, image_length: int) -> bool:
    """Whether it saves enough of the last link."""
    return patch.length <= WORTH * image_length


def choose(
    offers: tuple[Patch, ...], recipe: Recipe | None, running: bytes | None
) -> Patch | None:
    """The patch for a component that runs the image ``running`` (SHA-256), if any.

    It has to be made by the recipe of the component's type: others it cannot decode.
    """
    if recipe is None or running is None:
        return None
    for patch in offers:
        fits = (patch.kind, patch.window, patch.lookahead, patch.memory_size)
        wanted = (recipe.kind, recipe.window, recipe.lookahead, recipe.memory_size)
        if patch.base_sha256 == running and fits == wanted:
            return patch
    return None
