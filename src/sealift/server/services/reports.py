"""Signed reports of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.core.errors import ReportInvalidError

if TYPE_CHECKING:
    from sealift.core.audit import Actor
    from sealift.server.ports import Means


def receive(means: Means, actor: Actor, device_id: str, body: bytes) -> None:
    raise ReportInvalidError("not yet")
