"""The content key of a sealed order, out of the wrap the Director made for this device.

It is never written: after a restart the wrap in the journal, which is encrypted, is
unwrapped again. It dies with the working process (``child``); Python gives no way to
overwrite it before (``crypto-and-identity.md`` section 7.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.core.encryption import TENANT, key_id, unwrap, wrap_info
from sealift.core.errors import DecryptError

if TYPE_CHECKING:
    from sealift.agent.ports import DecryptionKey
    from sealift.core.types import Instruction


def unseal(order: Instruction, device_id: str, key: DecryptionKey) -> bytes:
    """The 32 bytes that open all containers of a sealed order. Loads ``cryptography``.

    Raises:
        DecryptError: wrapped for another key, device, component, image or Targets, or
            the order is not sealed.
    """
    if order.sealed is None:
        raise DecryptError("this order is not sealed")
    wrap = order.sealed.wrap
    own = key_id(key.kem, key.public)
    if (wrap.kem, wrap.kid) != (key.kem, own):
        raise DecryptError(
            f"the content key is wrapped for key {wrap.kid}, this device has {own}",
            hint="the server knows an older key of this device: enrol it again",
            kid=wrap.kid,
            own=own,
        )
    info = wrap_info(
        TENANT,
        device_id,
        order.ecu_id,
        order.artifact.name,
        order.full.sha256,
        order.director_version,
    )
    return unwrap(key.kem, key.public, key.dh, wrap.data, info)
