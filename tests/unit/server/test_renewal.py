"""A device's next certificate: who gets one, for which key, and what becomes of the old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealift.core.audit import Actor, ActorType
from sealift.core.errors import (
    AuthRequiredError,
    ForbiddenError,
    InvalidInputError,
    RateLimitedError,
    RevokedError,
    SealiftError,
)
from sealift.server import jobs
from sealift.server.ports import Certificate
from sealift.server.services import identity
from tests.unit.server.world import OPERATOR, TestDevice, World

ACTOR = Actor(ActorType.DEVICE, "dev-0001")


def certificates(world: World, name: str = "dev-0001") -> list[Certificate]:
    """The newest first."""
    return list(world.means.store.reader.devices.certificates(name))


def fresh_request(name: str = "dev-0001") -> bytes:
    return TestDevice(name, {}).csr


def renew(world: World, csr: bytes | None = None, shown: str = "") -> Certificate:
    shown = shown or certificates(world)[0].sha256
    return identity.renew(world.means, ACTOR, shown, csr or fresh_request())


def refused(world: World, kind: type[SealiftError], act: Callable[[], object]) -> None:
    """The error, and nothing issued or recorded."""
    before = len(world.leaves()), len(certificates(world))
    with pytest.raises(kind):
        act()
    assert (len(world.leaves()), len(certificates(world))) == before


def test_a_new_key_gets_a_new_certificate(world: World) -> None:
    """Same names, own serial, 90 days from now; both are good for the moment."""
    world.device()
    (old,) = certificates(world)
    world.clock.forward(days=60)
    key = TestDevice("dev-0001", {})
    found = renew(world, key.csr)
    issued = x509.load_pem_x509_certificate(found.pem.encode())
    assert issued.public_key() == key.tls_key.public_key()
    assert issued.subject.rfc4514_string() == "CN=dev-0001"
    assert found.not_after == world.means.clock.now() + timedelta(days=90)
    assert found.serial != old.serial
    for each in (old, found):
        caller = identity.caller_of(world.means.store.reader, each.sha256)
        assert caller.device_id == "dev-0001"
    assert world.leaves()[-1] == "device.renewed"


def test_the_same_key_may_be_kept(world: World) -> None:
    """A key in hardware that makes no second one is renewed as it is."""
    device = world.device()
    world.clock.forward(days=60)
    assert renew(world, device.csr).serial != certificates(world)[1].serial


def test_a_lost_answer_is_given_again(world: World) -> None:
    """The same request, under the old certificate: the same certificate, no event."""
    world.device()
    (old,) = certificates(world)
    csr = fresh_request()
    first = renew(world, csr)
    before = len(world.leaves())
    assert renew(world, csr, old.sha256) == replace(first, used_at=None)
    assert len(world.leaves()) == before


@pytest.mark.parametrize("days", [1, 399, 400])
def test_who_slept_past_the_end_comes_back(world: World, days: int) -> None:
    """The last certificate still renews for 400 days, and the log says how late."""
    world.device()
    world.clock.forward(days=90 + days)
    assert renew(world).not_after > world.means.clock.now()


def test_E04_who_slept_too_long_does_not(world: World) -> None:
    """401 days: a person decides."""
    world.device()
    world.clock.forward(days=491)
    refused(world, ForbiddenError, lambda: renew(world))


def test_E04_an_expired_one_that_is_not_the_last_renews_nothing(world: World) -> None:
    """Who has only an old one may be a thief with an old backup."""
    world.device()
    (old,) = certificates(world)
    world.clock.forward(days=60)
    renew(world)
    world.clock.forward(days=31)
    refused(world, ForbiddenError, lambda: renew(world, shown=old.sha256))


def test_E03_a_revoked_device_gets_none(world: World) -> None:
    """Revoked is revoked, however valid the certificate looks."""
    world.device()
    identity.revoke(world.means, OPERATOR, "dev-0001", "")
    refused(world, RevokedError, lambda: renew(world))


def test_a_quarantined_device_gets_none(world: World) -> None:
    """Neither of two clones may cut the other off."""
    world.device()
    with world.means.store.begin() as session:
        device = session.devices.find("dev-0001")
        assert device is not None
        session.devices.save(replace(device, state="quarantined"))
    refused(world, ForbiddenError, lambda: renew(world))


def test_E04_renewal_is_for_the_own_name(world: World) -> None:
    """A request that names somebody else, and a certificate nobody knows."""
    world.device()
    stranger = fresh_request("dev-0002")
    refused(world, InvalidInputError, lambda: renew(world, stranger))
    refused(world, AuthRequiredError, lambda: renew(world, shown="00" * 32))


def test_E08_a_key_belongs_to_one_identity(world: World) -> None:
    """Not at a renewal, and not at an enrolment."""
    world.device()
    other = world.device("dev-0002")
    mine = replace(other, id="dev-0001")
    refused(world, InvalidInputError, lambda: renew(world, mine.csr))
    third = replace(TestDevice("dev-0003", {"x": "board"}), tls_key=other.tls_key)
    with pytest.raises(InvalidInputError):
        identity.enrol(world.means, OPERATOR, third.wish())


@pytest.mark.parametrize(
    "csr", [b"", b"\x30\x03abc", b"-----BEGIN X-----", b"A" * 16_000]
)
def test_what_is_no_request_is_refused(world: World, csr: bytes) -> None:
    """Garbage, of any length."""
    world.device()
    refused(world, InvalidInputError, lambda: renew(world, csr or b"\0"))


def test_a_request_must_hold_its_key(world: World) -> None:
    """A signature that does not fit (E-08)."""
    world.device()
    raw = bytearray(x509.load_pem_x509_csr(fresh_request()).public_bytes(Encoding.DER))
    raw[-3] ^= 1
    refused(world, InvalidInputError, lambda: renew(world, bytes(raw)))


def test_a_device_that_renews_in_a_loop_is_slowed(world: World) -> None:
    """Ten a day; a day later there are ten more."""
    world.device()
    for _ in range(identity.A_DAY_MAX):
        renew(world)
    refused(world, RateLimitedError, lambda: renew(world))
    world.clock.forward(days=2)
    renew(world)


# ── what becomes of the old one ──────────────────────────────────────────────────────
def use(world: World, certificate: Certificate) -> None:
    world.means.store.note_used({certificate.sha256: world.means.clock.now()})


def test_the_old_one_ends_a_day_after_the_new_one_was_used(world: World) -> None:
    """Not before: a device that could not store the new one must get in again."""
    world.device()
    (old,) = certificates(world)
    world.clock.forward(days=60)
    new = renew(world)
    world.clock.forward(days=20)
    identity.retire(world.means, OPERATOR)
    assert certificates(world)[1].revoked_at is None  # never used: the device lost it
    use(world, new)
    world.clock.forward(hours=23)
    identity.retire(world.means, OPERATOR)
    assert certificates(world)[1].revoked_at is None
    world.clock.forward(hours=2)
    identity.retire(world.means, OPERATOR)
    assert world.leaves()[-1] == "certificate.retired"
    with pytest.raises(RevokedError):
        identity.caller_of(world.means.store.reader, old.sha256)
    caller = identity.caller_of(world.means.store.reader, new.sha256)
    assert not caller.first_use
    before = len(world.leaves())
    identity.retire(world.means, OPERATOR)
    assert len(world.leaves()) == before


def test_the_timetable_retires(world: World) -> None:
    """Without anybody asking."""
    world.device()
    use(world, renew(world))
    world.clock.forward(days=2)
    assert "certificates-retire" in jobs.run_due(world.means, "me")
    assert certificates(world)[1].revoked_at is not None


def test_first_use_is_noted_once(world: World) -> None:
    """Later requests do not move the moment."""
    world.device()
    (only,) = certificates(world)
    reader = world.means.store.reader
    assert identity.caller_of(reader, only.sha256).first_use
    use(world, only)
    at = certificates(world)[0].used_at
    world.clock.forward(hours=1)
    use(world, only)
    assert certificates(world)[0].used_at == at
    assert not identity.caller_of(reader, only.sha256).first_use
