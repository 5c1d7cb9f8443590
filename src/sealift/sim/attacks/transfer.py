"""Rows A-16 to A-20 and A-32: what comes over the wire, and how it comes.

These run over real TLS: the agent's own transport on one side of a loopback connection,
a server that says whatever an attacker wants on the other (``loopback``). The agent's
clock runs fast, so that minutes of waiting take a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.sim import network
from sealift.sim.attacks.loopback import Tls, over_tls
from sealift.sim.attacks.world import (
    DEVICE,
    OTHER,
    Ground,
    Observed,
    Plan,
    Scene,
    bounded,
    each,
)
from sealift.sim.network import Request, Response, answer, on

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.sim.network import Attacker

STAMP, BOXES = "director/metadata/timestamp.json", "director/targets/*"
FILES = (STAMP, "director/metadata/*.snapshot.json", "image/metadata/*.targets.json")
GOOD = Tls()
FAST = 240.0
"""Seconds of the agent's clock in one second of ours."""


def tls(plan: Plan, kind: Tls = GOOD, *, speed: float = 1.0) -> Plan:
    """The same plan, with the device talking to the wire over real TLS."""

    def act(scene: Scene) -> str:
        with over_tls(scene, kind, speed):
            return plan(scene)

    return act


# ──: without end, and without haste ───────────────────────────────────────
def attack_a_16(ground: Ground) -> Observed:
    """Metadata, then image bytes, that go on and on; said so or not."""

    def metadata(path: str, length: int | None) -> Plan:
        return bounded(
            lambda scene: scene.attempt(network.endless(path, length=length))
        )

    def longer(scene: Scene) -> str:
        """A container with a byte more than the signed length, as its head says."""
        outcome = scene.attempt(
            network.alter(BOXES, lambda body: body + b"\0"), *_whole
        )
        scene.require_unusable()
        scene.vendor.refresh(anew=True)
        return outcome

    return ground.observed(
        ground.each(tls(metadata(p, n)) for p in FILES for n in (None, 10**12)),
        ground.each([tls(longer)]),
    )


def _ignore_range(server: network.Server, request: Request) -> Response:
    """A server that does not know ranges: every answer is the whole file."""
    return server(
        Request(request.method, request.path, request.body, None, request.etag)
    )


_whole = (_ignore_range,)


def attack_a_17(ground: Ground) -> Observed:
    """A byte per second and a half; a burst, then next to nothing; then nothing."""
    slow = [
        lambda path: network.drip(path, count=1, seconds=1.5),
        lambda path: network.drip(path, count=1, seconds=1.5, burst=300, stall=30),
        lambda path: network.delay(path, 600.0),
    ]

    def plan(path: str, make: Callable[[str], Attacker]) -> Plan:
        return tls(lambda scene: scene.attempt(make(path)), speed=FAST)

    return ground.observed(
        ground.each(plan(path, make) for make in slow for path in (STAMP, BOXES))
    )


# ──: cut, and continued by somebody else ──────────────────────────────────
def attack_a_18(ground: Ground) -> Observed:
    """Cut at every kind of place, aloud and silently; the next check goes on."""

    def cut(path: str, at: int, *, silently: bool) -> Plan:
        return lambda scene: scene.attempt(network.cut(path, at, silently=silently))

    def shorter(scene: Scene) -> str:
        """A container that ends early and says it was never longer."""
        outcome = scene.attempt(network.alter(BOXES, lambda body: body[:-1]), *_whole)
        scene.vendor.refresh(anew=True)
        return outcome

    def resumed(scene: Scene) -> str:
        scene.attempt(network.cut(BOXES, 20_000))
        return scene.attempt()

    places = (0, 1, 143, 144, 300, 5_000, 65_000)
    aloud = [cut(path, at, silently=False) for path in FILES for at in (0, 1, 100)]
    aloud += [cut(BOXES, at, silently=False) for at in places]
    return ground.observed(
        ground.each(tls(plan) for plan in aloud),
        ground.each([tls(shorter)]),
        ground.each([tls(resumed)]),
    )


def attack_a_19(ground: Ground) -> Observed:
    """A download that is resumed with other bytes, another range, another file."""

    def poisoned(scene: Scene) -> str:
        scene.attempt(network.cut(BOXES, 20_000))

        def other(body: bytes) -> bytes:
            return bytes(byte ^ 1 for byte in body)

        outcome = scene.attempt(network.alter(BOXES, other))
        scene.require_unusable()
        scene.vendor.refresh(anew=True)
        return outcome

    def ranged(where: str) -> Plan:
        def lie(request: Request, response: Response) -> Response:
            start, stop = request.span or (0, 0)
            total = response.headers["content-range"].rpartition("/")[2]
            found = where.format(start=start, stop=stop, total=total)
            named = {**response.headers, "content-range": found}
            return Response(response.status, named, response.pieces)

        def act(scene: Scene) -> str:
            scene.attempt(network.cut(BOXES, 20_000))
            outcome = scene.attempt(on(BOXES, lie))
            scene.vendor.refresh(anew=True)
            return outcome

        return act

    def retagged(scene: Scene) -> str:
        """The entity tag changes under way: the file comes whole, and is the same."""
        scene.attempt(network.cut(BOXES, 20_000))
        return scene.attempt(network.headers(BOXES, etag='"other"'), *_whole)

    wrong = ("bytes 0-9/{total}", "bytes */{total}", "pages 1-2/3", "")
    return ground.observed(
        ground.each([tls(poisoned)]),
        ground.each(tls(ranged(where)) for where in wrong),
        ground.each([tls(ranged("bytes {start}-{stop}/9"))]),
        ground.each([tls(retagged)]),
    )


# ── A-20: nothing at all ─────────────────────────────────────────────────────────────
def attack_a_20(ground: Ground) -> Observed:
    """All traffic blocked, by silence and by refusal; then reports only."""

    def blocked(scene: Scene) -> str:
        return scene.attempt(network.drop("*"))

    return ground.observed(
        ground.each([blocked, tls(blocked)]), ground.play(_reports_dropped)
    )


def _reports_dropped(scene: Scene) -> str:
    """Reports blocked over several cycles arrive later, each once, oldest first."""
    seat = scene.seats[DEVICE]
    before = len(seat.delivered)
    for _ in range(3):
        scene.attempt(network.drop("director/manifest"))
    waiting = len(seat.device.waiting())
    scene.honest_cycle()
    counters = [manifest.counter for manifest in seat.delivered]
    first = counters[0]
    whole = counters == list(range(first, first + len(counters)))
    if whole and waiting >= 3 and len(counters) >= before + waiting:
        return "reports in order"
    return f"{waiting} waited, then {counters[before:]} came"


# ── A-32: TLS ────────────────────────────────────────────────────────────────────────
def attack_a_32(ground: Ground) -> Observed:
    """Every way in which a connection can be less than it must be."""
    broken = [
        Tls(certificate="other-authority"),
        Tls(certificate="wrong-name"),
        Tls(certificate="expired"),
        Tls(certificate="self-signed"),
        Tls(version="1.1"),
        Tls(version="1.0"),
        Tls(plain=True),
    ]
    tricks = [
        _redirected(STAMP, "http://127.0.0.1:1/x"),
        _redirected(STAMP, "https://127.0.0.1:1/x"),
        _redirected(BOXES, "http://127.0.0.1:1/x"),
        _redirected(BOXES, "file:///etc/passwd"),
        *(network.headers(path, content_encoding="gzip") for path in (STAMP, BOXES)),
    ]
    honest = [tls(lambda scene: scene.attempt(), kind) for kind in broken]
    tricks_played = [tls(tricked(it)) for it in tricks]
    return ground.observed(
        each([ground.each(honest), ground.each(tricks_played)]), _worthless_tls(ground)
    )


def tricked(attacker: Attacker) -> Plan:
    """One cycle with this attacker."""
    return lambda scene: scene.attempt(attacker)


def _redirected(path: str, to: str) -> Attacker:
    return on(path, lambda _request, _response: answer(b"", 302, location=to))


def _worthless_tls(ground: Ground) -> str:
    """A man in the middle whose certificate the device believes gets no further.

    All other rows go without TLS altogether, over a network in memory.
    """
    for code, plan in _LIES.items():
        outcome = ground.play(tls(plan))
        if outcome != code:
            return f"{outcome} where {code} was expected"
    return "the rest holds"


def _own_keys(scene: Scene) -> str:
    own = {role: [scene.thief[role]] for role in ("targets", "snapshot", "timestamp")}
    files = scene.forger("director", **own).chain({})
    return scene.attempt(scene.serve("director", files))


def _old_files(scene: Scene) -> str:
    recorded = scene.served()
    scene.catch_up()
    scene.catch_up()
    return scene.attempt(network.replay(recorded))


def _past_expiry(scene: Scene) -> str:
    recorded = scene.served()
    scene.later(days=30)
    return scene.attempt(network.replay(recorded))


def _for_another(scene: Scene) -> str:
    scene.seat(OTHER)
    files = scene.vendor.repository("director", OTHER)
    return scene.attempt(scene.serve("director", files))


def _other_bytes(scene: Scene) -> str:
    def change(body: bytes) -> bytes:
        return bytes(byte ^ 0x5A for byte in body)

    outcome = scene.attempt(network.alter(BOXES, change))
    scene.vendor.refresh(anew=True)
    return outcome


_LIES: dict[str, Plan] = {
    "metadata.signature": _own_keys,
    "metadata.rollback": _old_files,
    "metadata.expired": _past_expiry,
    "metadata.misdirected": _for_another,
    "payload.digest": _other_bytes,
}
"""Rows A-02, A-04, A-06, A-12 and A-03, over TLS that is the attacker's own."""
