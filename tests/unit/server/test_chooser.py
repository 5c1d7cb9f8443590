"""How an image reaches a device: the cheapest it can do, inside the budget, or a reason."""

from __future__ import annotations

import itertools
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core.types import Container
from sealift.server.domain.chooser import (
    DELTA_ABILITY,
    SEAL_ABILITY,
    Held,
    Known,
    Limits,
    Method,
    Offer,
    Target,
    Why,
    choose,
)

BASES = [sha256(bytes([n])).digest() for n in range(4)]
NEW = sha256(b"new").digest()
KEMS = ("x25519", "p256")


def container(length: int, base: bytes | None = None) -> Container:
    return Container("c", length, bytes(32), 1, bytes(32), 9 if base else 0, base)


FULL = container(1000)


def able(runs: bytes | None = BASES[0], *more: str) -> Known:
    return Known(runs, (DELTA_ABILITY, *more), "x25519", "aa", "aa")


# ── one at a time ────────────────────────────────────────────────────────────────────
def test_nothing_for_a_device_that_runs_it() -> None:
    """The image it reports already costs nothing, whatever the budget."""
    found = choose(able(NEW), Target(NEW, FULL), Limits(bytes_max=1))
    assert found == Offer(Method.NONE, 0)


def test_delta_from_its_own_base_only() -> None:
    """A delta from another image is no way."""
    own, other = container(300, BASES[0]), container(200, BASES[1])
    target = Target(NEW, FULL, deltas=(own, other))
    assert choose(able(), target, Limits()) == Offer(Method.DELTA, 300, own)
    assert choose(able(BASES[2]), target, Limits()) == Offer(Method.FULL, 1000)
    assert choose(able(None), target, Limits()) == Offer(Method.FULL, 1000)


def test_old_agents_get_full() -> None:
    """Without the ability there is no delta."""
    target = Target(NEW, FULL, deltas=(container(300, BASES[0]),))
    assert choose(Known(BASES[0]), target, Limits()) == Offer(Method.FULL, 1000)


def test_equal_costs_go_to_the_simplest() -> None:
    """A delta as long as the full container is not taken."""
    target = Target(NEW, FULL, deltas=(container(1000, BASES[0]),))
    assert choose(able(), target, Limits()) == Offer(Method.FULL, 1000)


def test_budget_holds_and_tells_the_figures() -> None:
    """Above the budget nothing is offered, and why is said with both numbers."""
    target = Target(NEW, FULL, deltas=(container(300, BASES[0]),))
    found = choose(able(), target, Limits(bytes_max=299))
    assert isinstance(found, Held)
    assert (found.why, found.bytes) == (Why.BUDGET, 300)
    assert "300" in found.detail
    assert "299" in found.detail
    assert choose(able(), target, Limits(bytes_max=300)) == Offer(
        Method.DELTA,
        300,
        target.deltas[0],  # type: ignore[index]
    )


def test_waits_for_its_delta_and_not_longer() -> None:
    """While one is made it is held; one that is there is not waited for."""
    waits = Limits(await_delta=True)
    found = choose(able(), Target(NEW, FULL), waits)
    assert isinstance(found, Held)
    assert found.why is Why.DELTA
    ready = Target(NEW, FULL, deltas=(container(300, BASES[0]),))
    assert isinstance(choose(able(), ready, waits), Offer)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (Known(BASES[0], (SEAL_ABILITY, "x25519")), Why.KEY),
        (Known(BASES[0], (SEAL_ABILITY,), "x25519", "aa", "aa"), Why.ABILITY),
        (Known(BASES[0], ("x25519",), "x25519", "aa", "aa"), Why.ABILITY),
        (Known(BASES[0], (SEAL_ABILITY, "x25519"), "x25519", "aa", "bb"), Why.KEY),
        (Known(BASES[0], (SEAL_ABILITY, "x25519"), "x25519", "aa", None), Why.KEY),
    ],
)
def test_sealed_only_for_those_that_can_open_it(known: Known, why: Why) -> None:
    """No key, another key, no ability: held with the reason, never plain."""
    found = choose(known, Target(NEW, FULL, sealed=True), Limits())
    assert isinstance(found, Held)
    assert found.why is why
    able_to = able(BASES[0], SEAL_ABILITY, "x25519")
    assert choose(able_to, Target(NEW, FULL, sealed=True), Limits()) == Offer(
        Method.FULL, 1000
    )


# ── whatever the numbers ─────────────────────────────────────────────────────────────
lengths = st.integers(1, 40)
targets = st.builds(
    Target,
    st.just(NEW),
    st.builds(container, lengths),
    st.booleans(),
    st.lists(st.builds(container, lengths, st.sampled_from(BASES)), max_size=5),
)
devices = st.builds(
    Known,
    st.sampled_from([None, NEW, *BASES]),
    st.sets(st.sampled_from([DELTA_ABILITY, SEAL_ABILITY, *KEMS])),
    st.sampled_from([None, *KEMS]),
    st.sampled_from([None, "aa", "bb"]),
    st.sampled_from([None, "aa", "bb"]),
)
limits = st.builds(Limits, st.none() | st.integers(0, 45), st.booleans())


def ways(known: Known, target: Target) -> dict[Method, int]:
    """What each method would cost, said another way than the chooser does."""
    found = {Method.FULL: target.full.length}
    usable = [d.length for d in target.deltas if d.base_sha256 == known.runs]
    if usable and DELTA_ABILITY in known.abilities:
        found[Method.DELTA] = min(usable)
    return {Method.NONE: 0} if known.runs == target.sha256 else found


@given(devices, targets, limits)
def test_never_dearer_than_it_must_be(
    known: Known, target: Target, limit: Limits
) -> None:
    """The figure is that of the cheapest way, offered or held."""
    found = choose(known, target, limit)
    assert found.bytes == min(ways(known, target).values())


@given(devices, targets, limits)
def test_offers_keep_every_limit(known: Known, target: Target, limit: Limits) -> None:
    """An offer is inside the budget, can be done and, if sealed, be opened."""
    found = choose(known, target, limit)
    if isinstance(found, Held):
        assert found.detail
        return
    possible = ways(known, target)
    assert possible[found.method] == found.bytes
    assert limit.bytes_max is None or found.bytes <= limit.bytes_max
    simpler = itertools.takewhile(lambda m: m is not found.method, Method)
    assert all(possible.get(m, found.bytes + 1) > found.bytes for m in simpler)
    if target.sealed and found.method is not Method.NONE:
        assert {SEAL_ABILITY, known.kem} <= set(known.abilities)
        assert known.kid == known.reported_kid


@given(devices, targets, limits)
def test_more_budget_never_closes_an_offer(
    known: Known, target: Target, limit: Limits
) -> None:
    """What fits a budget fits every larger one, by the same way."""
    found = choose(known, target, limit)
    if isinstance(found, Offer):
        assert choose(known, target, Limits(None, limit.await_delta)) == found


@given(devices, targets, limits)
def test_order_of_deltas_does_not_matter(
    known: Known, target: Target, limit: Limits
) -> None:
    """The choice does not depend on the order in which the database gives rows."""
    turned = Target(
        target.sha256, target.full, target.sealed, list(target.deltas)[::-1]
    )
    one, two = choose(known, target, limit), choose(known, turned, limit)
    assert (type(one), one.bytes) == (type(two), two.bytes)
