"""Devices as an operator sees them: what they run, when they were heard of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.server.ports import (
        Certificate,
        Device,
        Ecu,
        Installation,
        Manifest,
        Session,
    )

__all__ = ["DeviceView", "all_devices", "show_device"]

PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device with everything known of it."""

    device: Device
    ecus: Sequence[Ecu]
    certificates: Sequence[Certificate]
    installations: Sequence[Installation]
    manifests: Sequence[Manifest]


def all_devices(
    session: Session, after: str = "", limit: int = PAGE_MAX
) -> Sequence[tuple[Device, Sequence[Ecu]]]:
    """Devices in order of their ids, those after ``after``, with their components."""
    found = session.devices.all(after, min(limit, PAGE_MAX))
    return [(device, session.devices.ecus(device.id)) for device in found]


def show_device(session: Session, device_id: str) -> DeviceView:
    """One device.

    Raises:
        NotFoundError: there is none of that id.
    """
    device = session.devices.find(device_id)
    if device is None:
        raise NotFoundError(f"there is no device {device_id}")
    return DeviceView(
        device,
        session.devices.ecus(device_id),
        session.devices.certificates(device_id),
        session.deployments.installations_on(device_id),
        session.manifests.of(device_id),
    )
