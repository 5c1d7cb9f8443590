"""The content key of an order opens for this device, unit, image and Targets alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealift.agent.unsealing import unseal
from sealift.core.encryption import wrap, wrap_info
from sealift.core.errors import DecryptError
from sealift.core.hpke import KEMS, PrivateKey
from sealift.core.types import Artifact, Container, Instruction, Seal, Wrap
from tests.vendor import artifact, container

CONTENT_KEY = bytes(range(32))
DEVICE = "dev-1"


class Token:
    """A key in hardware: it agrees on secrets, and nothing else can be had of it."""

    def __init__(self, own: PrivateKey) -> None:
        self._own = own
        self.kem, self.public = own.kem, own.public
        self.asked = 0

    def dh(self, enc: bytes) -> bytes:
        self.asked += 1
        return self._own.dh(enc)


def own(kem: str = "x25519", byte: int = 1) -> PrivateKey:
    return PrivateKey(kem, bytes([byte] * 32))


def ordered(key: PrivateKey, **changes: Any) -> Instruction:
    """An order as the Director makes it for ``key``, then changed."""
    order = Instruction(
        ecu_id="dev-1-main",
        hardware_id="board-r1",
        artifact=artifact(),
        full=container(),
        delta=None,
        bytes_max=None,
        director_version=7,
        targets_sha256=bytes(32),
    )
    info = wrap_info(
        "default",
        DEVICE,
        order.ecu_id,
        order.artifact.name,
        order.full.sha256,
        order.director_version,
    )
    data = wrap(key.kem, key.public, CONTENT_KEY, info, bytes([2] * 32))
    seal = Seal(Wrap(key.kem, key.recipient.kid, data))
    return replace(order, **{"sealed": seal, **changes})


@pytest.mark.parametrize("kem", sorted(KEMS))
def test_the_content_key_comes_out_also_of_hardware(kem: str) -> None:
    """A key in memory, and one that is only asked for secrets."""
    key, token = own(kem), Token(own(kem))
    assert unseal(ordered(key), DEVICE, key) == CONTENT_KEY
    assert unseal(ordered(key), DEVICE, token) == CONTENT_KEY
    assert token.asked == 1


OTHERS: list[dict[str, Any]] = [
    {"ecu_id": "dev-1-spare"},
    {"artifact": artifact(name="board/rootfs-9.img")},
    {"full": container("2.0.0")},
    {"director_version": 8},
]


@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: next(iter(changes)))
def test_a_wrap_of_another_order_does_not_open(changes: dict[str, Any]) -> None:
    """Taken over from an older order, another unit or another image."""
    with pytest.raises(DecryptError):
        unseal(ordered(own(), **changes), DEVICE, own())
    with pytest.raises(DecryptError):
        unseal(ordered(own()), "dev-2", own())


def test_a_delta_beside_the_full_container_changes_nothing() -> None:
    """One key for both: the wrap names the full container, and repair needs no other."""
    delta = Container("x.delta.sealed", 900, bytes(32), 300, bytes(32), 5, bytes(32))
    assert unseal(ordered(own(), delta=delta), DEVICE, own()) == CONTENT_KEY


@pytest.mark.parametrize("key", [own(byte=3), own("p256")], ids=["x25519", "p256"])
def test_a_wrap_for_another_key_is_refused_by_name(key: PrivateKey) -> None:
    """The message says which key it is for and which one is here; nothing is tried."""
    token = Token(key)
    with pytest.raises(DecryptError) as caught:
        unseal(ordered(own()), DEVICE, token)
    assert caught.value.fields == {
        "kid": own().recipient.kid,
        "own": key.recipient.kid,
    }
    assert token.asked == 0


def test_a_changed_wrap_does_not_open() -> None:
    order = ordered(own())
    assert order.sealed is not None
    changed = replace(order.sealed.wrap, data=order.sealed.wrap.data[:-1] + b"\0")
    with pytest.raises(DecryptError):
        unseal(replace(order, sealed=Seal(changed)), DEVICE, own())


def test_an_order_in_the_open_has_no_content_key() -> None:
    open_order = replace(ordered(own()), sealed=None)
    assert isinstance(open_order.artifact, Artifact)
    with pytest.raises(DecryptError):
        unseal(open_order, DEVICE, own())
