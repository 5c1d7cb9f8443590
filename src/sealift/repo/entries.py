"""Entries of Targets files: ``core.types.Artifact`` to JSON and back.

One artifact has the same path, length, hashes and ``must_match`` in both repositories;
what each repository adds is written here side by side, so that they cannot drift apart.

Image (offline keys): ``custom.payload = {segment_size, segment_root, sealed?}`` and
``custom.release = {version, sequence}``. Director (online keys): ``custom.ecus``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import TargetFile

from sealift.core.encryption import plain_length
from sealift.core.errors import LimitError, MalformedError, UnsafeNameError
from sealift.core.types import Artifact, Seal, Wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sealift.core.hpke import Recipient
    from sealift.core.types import Container, Patch

__all__ = [
    "Listed",
    "Order",
    "Sealing",
    "blank_wraps",
    "check",
    "check_must_match",
    "check_name",
    "check_text",
    "director_entries",
    "image_entry",
    "listed",
    "must_match",
]

COUNT_MAX = 2**53 - 1
"""The greatest integer metadata may hold (it must survive every JSON reader)."""
HARDWARE_IDS_MAX = 64
TEXT_MAX = 128
"""Characters of a version, hardware id, ECU id or deployment label."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An artifact in Image Targets.

    ``sequence`` orders a product's releases; ``sbom_sha256`` binds the list of what is
    inside to the release, if the vendor gave one. A ``sealed`` one travels encrypted
    and is refused by devices otherwise.
    """

    artifact: Artifact
    sequence: int
    sbom_sha256: bytes | None = None
    sealed: bool = False

    @property
    def line(self) -> str:
        """``PRODUCT/COMPONENT``: artifacts of one line replace each other."""
        return self.artifact.name.removesuffix(f"-{self.artifact.version}.img")


@dataclass(frozen=True, slots=True)
class Sealing:
    """What it takes to wrap the content key of sealed containers for a device.

    ``content_key`` opens the key at the moment it is needed, which is when Targets are
    signed and not at every poll; ``draw(count)`` gives random bytes. Two are equal if
    they are for the same recipient.
    """

    recipient: Recipient
    content_key: Callable[[], bytes] = field(compare=False, repr=False)
    draw: Callable[[int], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """What one ECU shall run, and the containers that can bring it there.

    ``bytes_max`` caps the body bytes of the transfer; ``deployment`` is the server's
    own label and comes back in the device's report. With ``sealing`` every container is
    a sealed file.
    """

    ecu_id: str
    hardware_id: str
    artifact: Artifact
    full: Container
    delta: Container | None = None
    bytes_max: int | None = None
    deployment: str | None = None
    patch: Patch | None = None
    sealing: Sealing | None = None


def image_entry(found: Listed) -> TargetFile:
    """The Image Targets entry of one artifact.

    Raises:
        UnsafeNameError, LimitError: it may not be published like this.
    """
    artifact = found.artifact
    check(artifact)
    if not 0 < found.sequence <= COUNT_MAX:
        raise LimitError(f"release sequence {found.sequence} is out of range")
    payload: dict[str, Any] = {
        "segment_size": artifact.segment_size,
        "segment_root": artifact.segment_root.hex(),
    }
    if found.sealed:
        payload["sealed"] = True
    more: dict[str, Any] = {"payload": payload, "release": _release(found)}
    if artifact.bootable is not None:
        more["boot"] = artifact.bootable.to_json()
    return _entry(artifact, more)


def listed(path: str, target: TargetFile) -> Listed:
    """Read an Image Targets entry.

    Raises:
        MalformedError: it is not of the form :func:`image_entry` writes.
    """
    try:
        return _listed(path, target)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError(
            f"the entry of {path!r} is not one of ours: {error}", path=path
        ) from error


def director_entries(
    orders: Iterable[Order], wraps: Mapping[str, Wrap] | None = None
) -> dict[str, TargetFile]:
    """The Director's entries by path; ECUs with the same artifact share one.

    ``wraps`` are those of sealed orders by ECU id. Without them the entries are good
    for comparing only: see :func:`blank_wraps`.

    Raises:
        LengthError: a sealed container of a length no sealed file has.
        MalformedError: an ECU id twice (G7), or two artifacts under one name.
        LimitError, UnsafeNameError: a value no metadata may hold.
    """
    artifacts: dict[str, Artifact] = {}
    ecus: dict[str, dict[str, Any]] = {}
    for order in sorted(orders, key=lambda order: order.ecu_id):
        name = order.artifact.name
        check(order.artifact)
        if any(order.ecu_id in known for known in ecus.values()):
            raise MalformedError(f"ECU {order.ecu_id!r} is ordered twice")
        if artifacts.setdefault(name, order.artifact) != order.artifact:
            raise MalformedError(f"two different artifacts are called {name!r}")
        ecus.setdefault(name, {})[order.ecu_id] = _ecu(order, wraps or {})
    return {
        name: _entry(artifact, {"ecus": ecus[name]})
        for name, artifact in artifacts.items()
    }


def blank_wraps(entries: Mapping[str, TargetFile]) -> Mapping[str, TargetFile]:
    """The Director's entries with every wrap emptied, in place: for whom, not what.

    A wrap is made of fresh randomness each time, so it never compares; the recipient's
    key id beside it does.
    """
    for entry in entries.values():
        for ecu in entry.custom["ecus"].values():
            if "sealed" in ecu["payload"]:
                ecu["payload"]["sealed"]["wrap"]["data"] = ""
    return entries


def must_match(artifact: Artifact) -> dict[str, Any]:
    """What both repositories must say alike (C8)."""
    return {
        "hardware_ids": list(artifact.hardware_ids),
        "release_counter": artifact.release_counter,
    }


def check(artifact: Artifact) -> None:
    """Refuse an artifact that no Targets file may list.

    Raises:
        UnsafeNameError: its name. LimitError: a number or text out of range.
        MalformedError: a boot file where there can be none.
    """
    check_name(artifact.name)
    for what, count in {
        "length": artifact.length,
        "segment size": artifact.segment_size,
    }.items():
        if not 0 < count <= COUNT_MAX:
            raise LimitError(f"{artifact.name}: {what} {count} is out of range")
    check_must_match(artifact.hardware_ids, artifact.release_counter)
    check_text(artifact.version)
    if artifact.bootable is not None:
        artifact.bootable.check_within(artifact.length)


def check_must_match(hardware_ids: Collection[str], release_counter: int) -> None:
    """Refuse hardware ids or a counter that no Targets file may hold.

    Raises:
        LimitError: too few, too many, or out of range.
    """
    if not 0 <= release_counter <= COUNT_MAX:
        raise LimitError(f"release counter {release_counter} is out of range")
    if not 0 < len(hardware_ids) <= HARDWARE_IDS_MAX:
        raise LimitError(
            f"{len(hardware_ids)} hardware ids", hint=f"name 1 to {HARDWARE_IDS_MAX}"
        )
    for hardware_id in hardware_ids:
        check_text(hardware_id)


def check_text(text: str) -> None:
    """Refuse an empty, long or unprintable text (ids, versions, labels).

    Raises:
        LimitError: it is one of these.
    """
    if not 0 < len(text) <= TEXT_MAX or not text.isprintable():
        raise LimitError(
            f"{text[:TEXT_MAX]!r} is not a usable id or version",
            hint=f"1 to {TEXT_MAX} printable characters",
        )


def check_name(name: str) -> None:
    """Refuse a target path no device would take: ``PRODUCT/COMPONENT-VERSION.img``.

    Raises:
        UnsafeNameError: with what is wrong about it.
    """
    parts = name.split("/")
    if (
        not 0 < len(name.encode("utf-8", "replace")) <= 1024
        or len(parts) > 32
        or not name.isprintable()
        or any(not part or part in {".", ".."} for part in parts)
        or any(len(part.encode("utf-8", "replace")) > 160 for part in parts)
        or set(name) & set("\\[]*?%#")
    ):
        raise UnsafeNameError(
            f"{name!r} cannot be the name of an artifact",
            hint="letters, digits, . _ - and / between parts; no empty, . or .. part",
        )


def _entry(artifact: Artifact, more: Mapping[str, Any]) -> TargetFile:
    hashes = {"sha256": artifact.sha256.hex()}
    if artifact.sha512 is not None:
        hashes["sha512"] = artifact.sha512.hex()
    custom = {"must_match": must_match(artifact), **more}
    return TargetFile(artifact.length, hashes, artifact.name, {"custom": custom})


def _release(found: Listed) -> dict[str, Any]:
    release = {"version": found.artifact.version, "sequence": found.sequence}
    if found.sbom_sha256 is None:
        return release
    return {**release, "sbom_sha256": found.sbom_sha256.hex()}


def _ecu(order: Order, wraps: Mapping[str, Wrap]) -> dict[str, Any]:
    for text in (order.ecu_id, order.hardware_id, order.deployment or "-"):
        check_text(text)
    payload: dict[str, Any] = {"full": order.full.to_json()}
    if order.delta is not None:
        payload["delta"] = order.delta.to_json()
    if order.patch is not None:
        payload["mcu"] = order.patch.to_json()
    if order.sealing is not None:
        payload["sealed"] = _seal(order, order.sealing.recipient, wraps)
    found: dict[str, Any] = {"hardware_id": order.hardware_id, "payload": payload}
    if order.bytes_max is not None:
        found["bytes_max"] = order.bytes_max
    if order.deployment is not None:
        found["deployment"] = order.deployment
    return found


def _seal(
    order: Order, recipient: Recipient, wraps: Mapping[str, Wrap]
) -> dict[str, Any]:
    if order.patch is not None:
        raise MalformedError("a patch in plain bytes beside a sealed payload")
    for container in filter(None, (order.full, order.delta)):
        plain_length(container.length)
    blank = Wrap(recipient.kem, recipient.kid, b"")
    return Seal(wraps.get(order.ecu_id, blank)).to_json()


def _listed(path: str, target: TargetFile) -> Listed:
    custom = target.custom
    match, payload, release = (
        custom[name] for name in ("must_match", "payload", "release")
    )
    artifact = Artifact.from_json(
        {
            "name": path,
            "length": target.length,
            "sha256": target.hashes["sha256"],
            "sha512": target.hashes.get("sha512"),
            "segment_size": payload["segment_size"],
            "segment_root": payload["segment_root"],
            "hardware_ids": match["hardware_ids"],
            "release_counter": match["release_counter"],
            "version": release["version"],
            "boot": custom.get("boot"),
        }
    )
    if type(release["sequence"]) is not int:
        raise TypeError("the release sequence is not an integer")
    sbom, sealed = release.get("sbom_sha256"), payload.get("sealed", False)
    if not isinstance(sealed, bool):
        raise TypeError("sealed is neither true nor false")
    return Listed(
        artifact,
        release["sequence"],
        None if sbom is None else bytes.fromhex(sbom),
        sealed,
    )
