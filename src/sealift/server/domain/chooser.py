"""How an image reaches one device: nothing, a delta, or the full container.

The cheapest by expected bytes on the wire among what the device can do; equal ones go
to the simplest. What does not fit the budget is not offered, and why not is said: a
device is never sent the full container silently because a delta is missing (design
pages ``payload.md`` section 5 and ``product.md`` section 5.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sealift.core.types import Container

__all__ = [
    "DELTA_ABILITY",
    "SEAL_ABILITY",
    "Held",
    "Known",
    "Limits",
    "Method",
    "Offer",
    "Target",
    "Why",
    "choose",
]

DELTA_ABILITY = "delta/1"
SEAL_ABILITY = "cobblestone-256"
"""What a device reports that it can decode (``core.reports``)."""


class Method(StrEnum):
    """What is fetched, the simplest first."""

    NONE = "none"
    FULL = "full"
    DELTA = "delta"


class Why(StrEnum):
    """Why an installation is not ordered now; each is seen by the operator."""

    BUDGET = "budget"
    """Everything the device can do costs more than it may."""
    DELTA = "delta"
    """A delta is being made and the deployment waits for it."""
    ABILITY = "ability"
    """The image travels sealed and the device has not said that it can open it."""
    KEY = "key"
    """The image travels sealed and no decryption key of the device is known."""
    POLICY = "policy"
    """The hardware takes sealed images only, and this one is not."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a device and one component.

    ``runs`` is the digest of the image it reported last. ``kem`` and ``kid`` are of the
    decryption key it was enrolled with, ``reported_kid`` is what it says it has.
    """

    runs: bytes | None
    abilities: Collection[str] = ()
    kem: str | None = None
    kid: str | None = None
    reported_kid: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The image to bring there and the containers there are."""

    sha256: bytes
    full: Container
    sealed: bool = False
    deltas: Collection[Container] = ()
    """Those that are ready, from any base."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``bytes_max`` caps body bytes; ``await_delta``: one is made for this device."""

    bytes_max: int | None = None
    await_delta: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What is ordered; ``bytes`` is what it should cost on the wire."""

    method: Method
    bytes: int
    delta: Container | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Not ordered now; ``bytes`` is what the cheapest way would cost."""

    why: Why
    bytes: int
    detail: str


def choose(known: Known, target: Target, limits: Limits) -> Offer | Held:
    """Decide for one component."""
    if known.runs == target.sha256:
        return Offer(Method.NONE, 0)
    best = min(_ways(known, target), key=_cost)
    closed = _closed(known) if target.sealed else None
    if closed is not None:
        return Held(closed[0], best.bytes, closed[1])
    if limits.await_delta and best.method is not Method.DELTA:
        detail = f"a delta is being made; in full it costs {best.bytes} bytes"
        return Held(Why.DELTA, best.bytes, detail)
    if limits.bytes_max is not None and best.bytes > limits.bytes_max:
        return Held(Why.BUDGET, best.bytes, _dear(best, limits.bytes_max))
    return best


def _ways(known: Known, target: Target) -> Iterator[Offer]:
    """What would bring the device there, were there no limits."""
    yield Offer(Method.FULL, target.full.length)
    if DELTA_ABILITY not in known.abilities:
        return
    for delta in target.deltas:
        if delta.base_sha256 == known.runs:
            yield Offer(Method.DELTA, delta.length, delta)


def _cost(offer: Offer) -> tuple[int, bool]:
    return offer.bytes, offer.method is Method.DELTA


def _closed(known: Known) -> tuple[Why, str] | None:
    """Why the device cannot open a sealed image, if it cannot."""
    if known.kem is None:
        return Why.KEY, "the device was enrolled without a decryption key"
    if SEAL_ABILITY not in known.abilities or known.kem not in known.abilities:
        return Why.ABILITY, "the device has not reported that it opens sealed images"
    if known.reported_kid != known.kid:
        return Why.KEY, "the device reports another decryption key than it has here"
    return None


def _dear(best: Offer, bytes_max: int) -> str:
    return (
        f"the cheapest way, {best.method.value}, costs {best.bytes} bytes; "
        f"{bytes_max} are allowed"
    )
