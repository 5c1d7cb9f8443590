"""What Sealift adds to a Targets entry, under ``custom``: read strictly, not judged.

Image entries carry ``must_match``, ``payload`` and ``release``, and ``boot`` if the
image boots verified; Director entries ``must_match`` and ``ecus``. The design is in
``uptane.md`` section 6.1 and ``payload.md`` section 2. Whether both repositories agree
is decided in ``uptane``. Other TUF clients ignore all of it, and it is never read from
foreign repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sealift.core import fields
from sealift.core.encryption import plain_length
from sealift.core.errors import MalformedError, UnsafeNameError
from sealift.core.types import Bootable, Container, Patch, Seal

MAX_HARDWARE_IDS = 64
MAX_ECUS = 256
MAX_TEXT = 128
"""Characters of an id or a version."""
MAX_LENGTH = 2**37
"""Bytes of a container; an image has at most 2^36 (``payload.md`` section 3)."""


@dataclass(frozen=True, slots=True)
class MustMatch:
    """What both repositories must say alike of an image (C8)."""

    hardware_ids: tuple[str, ...]
    release_counter: int

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> MustMatch:
        """Read the section; raises ``MalformedError`` or ``LimitError``."""
        ids = fields.texts(found, "hardware_ids", MAX_HARDWARE_IDS, MAX_TEXT)
        if not ids:
            raise MalformedError("hardware_ids is empty: the image would fit nothing")
        return cls(ids, fields.count(found, "release_counter"))


@dataclass(frozen=True, slots=True)
class Segments:
    """How the plain image is cut, the tree hash over its segments, how it travels.

    ``sealed`` is the vendor's word that it travels encrypted and never otherwise.
    """

    size: int
    root: bytes
    sealed: bool = False

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Segments:
        """Read the section; raises ``MalformedError`` or ``LimitError``."""
        size = fields.count(found, "segment_size", 1 << 16, 1 << 20)
        if size & (size - 1):
            raise MalformedError("segment_size is not a power of two")
        sealed = "sealed" in found and fields.flag(found, "sealed")
        return cls(size, fields.digest(found, "segment_root", 32), sealed)


@dataclass(frozen=True, slots=True)
class EcuOrder:
    """What the Director wants one ECU to run, and the containers it offers for it."""

    hardware_id: str
    full: Container
    delta: Container | None
    bytes_max: int | None
    deployment: str | None
    sealed: Seal | None = None
    patch: Patch | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> EcuOrder:
        """Read the section.

        Raises:
            MalformedError, LimitError: its form. UnsafeNameError: a name that is a
                path. LengthError: sealed, with a length no sealed file has.
        """
        payload = fields.member(found, "payload")
        seal = None
        if payload.get("sealed") is not None:
            seal = Seal.from_json(fields.member(payload, "sealed"))
        sealed = seal is not None
        full = _container(fields.member(payload, "full"), delta=False, sealed=sealed)
        delta = None
        if payload.get("delta") is not None:
            found_delta = fields.member(payload, "delta")
            delta = _container(found_delta, delta=True, sealed=sealed)
        limit, label = found.get("bytes_max"), found.get("deployment")
        return cls(
            hardware_id=fields.text(found, "hardware_id", MAX_TEXT),
            full=full,
            delta=delta,
            bytes_max=None if limit is None else fields.count(found, "bytes_max"),
            deployment=None if label is None else fields.text(found, "deployment", 256),
            sealed=seal,
            patch=_patch(payload, sealed=sealed),
        )


@dataclass(frozen=True, slots=True)
class Custom:
    """The ``custom`` member of an entry; what is absent is ``None`` or empty."""

    must_match: MustMatch | None
    segments: Segments | None
    version: str | None
    ecus: Mapping[str, EcuOrder]
    bootable: Bootable | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Custom:
        """Read the member; raises ``MalformedError`` or ``LimitError``."""
        release = fields.member(found, "release") if "release" in found else None
        ecus = fields.member(found, "ecus") if "ecus" in found else {}
        return cls(
            must_match=(
                MustMatch.from_json(fields.member(found, "must_match"))
                if "must_match" in found
                else None
            ),
            segments=(
                Segments.from_json(fields.member(found, "payload"))
                if "payload" in found
                else None
            ),
            version=None
            if release is None
            else fields.text(release, "version", MAX_TEXT),
            ecus={
                fields.as_text(name, "ECU id", MAX_TEXT): EcuOrder.from_json(
                    fields.as_object(order, "ECU")
                )
                for name, order in fields.at_most(ecus, MAX_ECUS, "ecus").items()
            },
            bootable=(
                Bootable.from_json(fields.member(found, "boot"))
                if "boot" in found
                else None
            ),
        )


def _patch(payload: Mapping[str, object], *, sealed: bool) -> Patch | None:
    if payload.get("mcu") is None:
        return None
    if sealed:  # differences would show what the seal hides
        raise MalformedError("a patch in plain bytes beside a sealed payload")
    found = fields.member(payload, "mcu")
    _plain_name(found)
    return Patch.from_json(found)


def _container(found: Mapping[str, object], *, delta: bool, sealed: bool) -> Container:
    container = Container.from_json(found)
    _plain_name(found)
    for bounded in ("length", "head_length", *(["base_length"] if delta else [])):
        fields.count(found, bounded, 1, MAX_LENGTH)
    length = plain_length(container.length) if sealed else container.length
    if container.head_length > length:
        raise MalformedError("the head of a container is longer than the container")
    if delta != (container.base_sha256 is not None):
        raise MalformedError("a delta needs a base, and a full container has none")
    return container


def _plain_name(found: Mapping[str, object]) -> None:
    name = fields.text(found, "name", 240)
    if "/" in name or name in {".", ".."}:
        raise UnsafeNameError("a container has a name that is a path")
