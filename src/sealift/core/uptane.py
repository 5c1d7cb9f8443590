"""What Uptane adds to TUF: the Director orders, the Image repository vouches.

The Director alone can make a device install nothing: each order becomes an
:class:`Instruction` only where the offline keys of the Image repository describe the
same image, for this hardware, with a release counter that does not go down. The ids in
the comments are those of ``uptane.md`` (G6 to G8, W1 to W4, F10, C8). What is left to
the transfer (W5 to W8) is in the agent's payload and install steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sealift.core.delegation import Found
from sealift.core.errors import (
    CounterError,
    DelegationError,
    DigestError,
    HardwareError,
    MalformedError,
    MisdirectedError,
    MismatchError,
)
from sealift.core.extension import EcuOrder, MustMatch, Segments
from sealift.core.metadata import HASHES, Target, Targets
from sealift.core.trusted import Complete
from sealift.core.types import Artifact, Instruction

Units = Mapping[str, str]
"""The ECUs of this device: ECU id → hardware id."""


@dataclass(frozen=True, slots=True)
class Order:
    """One ECU's entry of Director Targets, admitted but not vouched for."""

    ecu_id: str
    path: str
    target: Target
    unit: EcuOrder
    must_match: MustMatch


def admit(new: Targets, before: Targets | None, units: Units) -> tuple[Order, ...]:
    """The Director's orders for this device, in the order of ECU ids.

    ``before`` is the Director Targets that was in force, whose release counters are a
    floor as well (W4).

    Raises:
        DelegationError: G6, the Director delegates.
        MisdirectedError: G7, G8, an ECU id twice, or one this device does not have.
        HardwareError: W2, the order is for other hardware than the ECU has.
        CounterError: W4, a release counter went down since ``before``.
        MalformedError: an entry without ECU ids (C6) or without must_match (C8).
    """
    if new.delegations:  # G6
        raise DelegationError("the Director delegates")
    orders = sorted(_orders(new), key=lambda order: order.ecu_id)
    for first, second in pairwise(orders):
        if first.ecu_id == second.ecu_id:  # G7
            raise MisdirectedError(f"two orders for {first.ecu_id}", ecu=first.ecu_id)
    floors = {o.ecu_id: o.must_match.release_counter for o in _past_orders(before)}
    for order in orders:
        _require_unit(order, units)
        _require_counter(order, floors)
    return tuple(orders)


def _orders(targets: Targets) -> Iterator[Order]:
    for path, target in targets.targets.items():
        custom = target.custom
        if custom is None or custom.must_match is None:  # C8
            raise MalformedError(f"{path} has no must_match", path=path)
        if not custom.ecus:  # C6
            raise MalformedError(f"{path} is ordered for no ECU", path=path)
        for ecu_id, unit in custom.ecus.items():
            yield Order(ecu_id, path, target, unit, custom.must_match)


def _past_orders(before: Targets | None) -> Iterator[Order]:
    return iter(()) if before is None else _orders(before)


def _require_unit(order: Order, units: Units) -> None:
    if order.ecu_id not in units:  # G8, W1
        raise MisdirectedError(
            f"an order for {order.ecu_id}, which is not here", ecu=order.ecu_id
        )
    if order.unit.hardware_id != units[order.ecu_id]:  # W2
        raise HardwareError(
            f"{order.ecu_id} is ordered to be {order.unit.hardware_id}",
            ecu=order.ecu_id,
        )


def _require_counter(order: Order, floors: Mapping[str, int]) -> None:
    counter, floor = order.must_match.release_counter, floors.get(order.ecu_id, 0)
    if counter < floor:  # W4
        raise CounterError(
            f"{order.ecu_id}: release counter {counter}, the floor is {floor}",
            hint="a deliberate downgrade needs a new release with a higher counter",
            ecu=order.ecu_id,
            counter=counter,
            floor=floor,
        )


def instruct(
    director: Complete, order: Order, found: Found, floors: Mapping[str, int]
) -> Instruction:
    """F10: the order as an instruction, if the Image repository vouches for it.

    ``found`` is what the search for exactly ``order.path`` gave (W3, L1 to L8), and
    ``floors`` the release counter of the confirmed release of each ECU.

    Raises:
        MismatchError: length, a hash, hardware ids or release counter differ, or one
            says that the image travels sealed and the other that it does not (C7).
        HardwareError: W2, the image is not for this hardware.
        CounterError: W4, the release counter is below the ECU's floor.
        DigestError: P4, a hash algorithm we do not know: never "no hash".
        MalformedError: the Image entry lacks must_match, payload or release.
    """
    image, must_match = found.target, _require_same(order, found.target)
    if order.unit.hardware_id not in must_match.hardware_ids:  # W2
        raise HardwareError(
            f"{order.path} is not for {order.unit.hardware_id}", ecu=order.ecu_id
        )
    _require_counter(order, floors)
    return Instruction(
        ecu_id=order.ecu_id,
        hardware_id=order.unit.hardware_id,
        artifact=_artifact(order, image, must_match),
        full=order.unit.full,
        delta=order.unit.delta,
        bytes_max=order.unit.bytes_max,
        director_version=director.targets.body.version,
        targets_sha256=director.targets.sha256,
        deployment=order.unit.deployment,
        sealed=order.unit.sealed,
        patch=order.unit.patch,
    )


def _require_same(order: Order, image: Target) -> MustMatch:
    """Both repositories describe one image, to the last digest and counter (C8)."""
    must_match = image.custom.must_match if image.custom else None
    if must_match is None:
        raise MalformedError(f"{order.path} has no must_match", path=order.path)
    same = (
        order.target.length == image.length
        and order.target.hashes == image.hashes
        and order.must_match.release_counter == must_match.release_counter
        and set(order.must_match.hardware_ids) == set(must_match.hardware_ids)
    )
    if not same:
        raise MismatchError(
            f"the two repositories describe {order.path} differently", path=order.path
        )
    return must_match


def _require_sealed_alike(order: Order, segments: Segments) -> None:
    """Whether an image is secret is the word of the offline keys (C7)."""
    if segments.sealed != (order.unit.sealed is not None):
        raise MismatchError(
            f"{order.path} is sealed in one repository and not in the other",
            path=order.path,
        )


def _artifact(order: Order, image: Target, must_match: MustMatch) -> Artifact:
    path = order.path
    for name in image.hashes:
        if name not in HASHES:
            raise DigestError(f"{path}: hash algorithm {name} is unknown", path=path)
    segments, version = _release(path, image)
    _require_sealed_alike(order, segments)
    bootable = image.custom.bootable if image.custom else None
    if bootable is not None:
        bootable.check_within(image.length)
    sha512 = image.hashes.get("sha512")
    return Artifact(
        name=path,
        length=image.length,
        sha256=bytes.fromhex(image.hashes["sha256"]),
        sha512=None if sha512 is None else bytes.fromhex(sha512),
        segment_size=segments.size,
        segment_root=segments.root,
        hardware_ids=must_match.hardware_ids,
        release_counter=must_match.release_counter,
        version=version,
        bootable=bootable,
    )


def _release(path: str, image: Target) -> tuple[Segments, str]:
    custom = image.custom
    if custom is None or custom.segments is None or custom.version is None:
        raise MalformedError(f"{path} lacks payload or release", path=path)
    return custom.segments, custom.version
