"""The demo's steps in order: what each does, and what must come of it.

A step returns what was observed in words, or raises. Who acts is in ``stage`` and
``bench``, what the villain does in ``mischief``; how steps are run and told is in
``demo``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealift.core.types import SEGMENT_SIZE
from sealift.sim import ext4, mischief
from sealift.sim.bench import DEVICE, Bench
from sealift.sim.images import PRODUCT, Builder, Image, Profile
from sealift.sim.processes import Processes, wait_for
from sealift.sim.relay import Relay
from sealift.sim.stage import Desk, Packed, Server, order, require, shown

__all__ = ["STEPS", "Scene", "Step", "Watch"]

HOME, GOOD, NEXT, UNWELL = "1.0.0", "1.1.0", "1.2.0", "1.3.0"
COUNTERS = {HOME: 1, GOOD: 2, NEXT: 3, UNWELL: 4}
"""The release counter of each version; it never goes down on a device."""

TWICE_MAX = 2 * SEGMENT_SIZE + 512 * 1024
"""Bytes a cut may cost: a segment between socket and medium, what the kernel had taken
and the agent had not, metadata and TLS once more."""

_SLOW_SECONDS = 5.0
_STEP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on: ``say`` gets lines, ``report`` gets (what, done, total), bytes."""

    say: Callable[[str], None]
    report: Callable[[str, int, int], None]


@dataclass(slots=True)
class Scene:
    """Everybody who takes part, and what they have made so far."""

    work: Path
    profile: Profile
    run: Processes
    relay: Relay
    server: Server
    desk: Desk
    bench: Bench
    watch: Watch
    images: dict[str, Image] = field(default_factory=dict)
    packed: dict[str, Packed] = field(default_factory=dict)
    old_metadata: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def set_up(
        cls,
        work: Path,
        directory: Path,
        profile: Profile,
        run: Processes,
        relay: Relay,
        watch: Watch,
    ) -> Scene:
        """Everybody in a directory of their own below ``directory``."""
        return cls(
            work,
            profile,
            run,
            relay,
            Server(run, directory / "server", "server"),
            Desk(run, directory / "desk"),
            Bench(run, directory / DEVICE, work / "tools"),
            watch,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its name, what must come of it, and the act that tells what did."""

    name: str
    required: str
    act: Callable[[Scene], str]


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order to the device: the deployment, and what was known before it."""

    version: str
    deployment: str
    known: frozenset[str]
    before: int


# ── the honest part ──────────────────────────────────────────────────────────────────
def build_images(scene: Scene) -> str:
    """Four file systems of one product; the fourth cannot start its service."""
    tools = ext4.find(scene.work / "tools", scene.watch.say)
    builder = Builder(scene.work, scene.profile, tools, scene.watch.say)
    pools = builder.pools()
    for version in COUNTERS:
        pool = pools.older if version == HOME else pools.newer
        image = builder.build(version, pool, healthy=version != UNWELL)
        scene.images[version] = image
    chosen = set(scene.profile.packages)
    changed = ", ".join(
        f"{old.name} {old.version} to {new.version}"
        for old, new in pools.updated
        if new.name in chosen
    )
    return (
        f"{len(scene.images)} ext4 images of {scene.profile.size >> 20} MiB out of "
        f"{len(pools.newer)} Debian packages, {len(pools.updated)} of them updated"
        f"{f': {changed}' if changed else ''}; sha256 "
        + ", ".join(f"{v} {i.sha256[:12]}" for v, i in scene.images.items())
    )


def start_server(scene: Scene) -> str:
    """A server with fresh secrets, reached through the link."""
    scene.server.init()
    scene.server.start()
    scene.server.require_guarded()
    scene.relay.turn(scene.server.device_port)
    return (
        "a wrong token gets auth.required, a device without certificate no answer; "
        "the token itself is in no file of the server"
    )


def make_keys(scene: Scene) -> str:
    """The key ceremony, and its public part published."""
    made = scene.desk.init(scene.server.online_keys)
    scene.desk.publish_keys(scene.server)
    shapes = f"{made['threshold']} of {made['people']}"
    require(shapes == "2 of 3", f"{shapes} keys instead of 2 of 3")
    scene.desk.require_encrypted()
    return f"{len(made['keys'])} encrypted key files, {shapes} must agree"


def make_device(scene: Scene) -> str:
    """A device from the factory, on the reference board."""
    bench = scene.bench
    bench.provision(scene.server, scene.desk.directory, scene.relay.port)
    bench.install_at_the_factory(scene.images[HOME])
    bench.power_on()
    return bench.require_unharmed(scene.images[HOME])


def release(scene: Scene) -> str:
    """The first release: packed, read, signed by two people, published."""
    told = _release(scene, GOOD)
    packed = scene.packed[GOOD]
    saved = 100 - 100 * packed.length // scene.images[GOOD].length
    return (
        f"{packed.id}: container of {shown(packed.length)} ({saved} % less than the "
        f"image), signed by two of three after reading {len(told)} findings"
    )


def update(scene: Scene) -> str:
    """The whole way, from order to report."""
    scene.old_metadata = mischief.recorded(scene.server, DEVICE)
    ordered = _order(scene, GOOD)
    _require_end(_ended(scene, ordered), "succeeded", None)
    _require_reported(scene, ordered, "succeeded")
    return f"{scene.bench.require_unharmed(scene.images[GOOD])}; its report says so"


# ── the attacks ──────────────────────────────────────────────────────────────────────
def refuse_forged(scene: Scene) -> str:
    """Everything re-signed, served from the server's own address."""
    malware = scene.server.directory.with_name("malware.img")
    malware.write_bytes(b"not by the vendor\n" * 4096)
    image = Image(malware, "9.9.9", malware.stat().st_size, "")
    forger, release_id = mischief.forge(scene.run, scene.server, image)
    order(scene.run, forger, release_id, DEVICE)
    seen = _refused(
        scene, "metadata.signature", lambda: scene.relay.turn(forger.device_port)
    )
    scene.relay.turn(scene.server.device_port)
    forger.stop()
    return f"{seen}; {scene.bench.require_unharmed(scene.images[GOOD])}"


def refuse_replayed(scene: Scene) -> str:
    """Metadata that was valid once, served again from the server's own address."""
    with mischief.replaying(scene.server, scene.old_metadata) as port:
        seen = _refused(scene, "metadata.rollback", lambda: scene.relay.turn(port))
        scene.relay.turn(scene.server.device_port)
    return f"{seen}; {scene.bench.require_unharmed(scene.images[GOOD])}"


def refuse_tampered(scene: Scene) -> str:
    """One flipped byte in the container on the server's disk."""
    _release(scene, NEXT)
    blob = scene.server.blob(scene.packed[NEXT].sha256)
    mischief.flip(blob)
    scene.bench.erase_other_slot()
    ordered = _order(scene, NEXT)
    entry = _ended(scene, ordered)
    mischief.flip(blob)
    _require_end(entry, "failed", "payload.digest")
    _require_reported(scene, ordered, "failed")
    unharmed = scene.bench.require_unharmed(scene.images[GOOD])
    return f"{entry['code']} while {entry['stage']}, reported; {unharmed}"


def refuse_downgrade(scene: Scene) -> str:
    """An honest older release, ordered with the server's own keys."""
    mischief.forget(scene.server)
    seen = _refused(scene, "metadata.counter", lambda: _order(scene, GOOD))
    return f"{seen}; {scene.bench.require_unharmed(scene.images[NEXT])}"


# ── what goes wrong by itself ────────────────────────────────────────────────────────
def survive_kill(scene: Scene) -> str:
    """SIGKILL while half of an image has come over a slow link."""
    packed, relay = scene.packed[NEXT], scene.relay
    scene.bench.erase_other_slot()
    relay.rate = int(packed.length / _SLOW_SECONDS)
    ordered = _order(scene, NEXT)

    def arrived() -> bool:
        return _came(scene, ordered) > packed.length // 2

    wait_for(arrived, "half of the container", seconds=_STEP_SECONDS, step=0.02)
    state = scene.bench.look().state
    require(state == "staging", f"the device was {state}, not in the middle of it")
    came = _came(scene, ordered)
    pid = scene.bench.kill()
    relay.rate = 0
    _require_end(_ended(scene, ordered), "succeeded", None)
    twice = _came(scene, ordered) - packed.length
    require(twice <= TWICE_MAX, f"{shown(twice)} more than the container were fetched")
    return (
        f"agent {pid} killed after {shown(came)} of {shown(packed.length)}; "
        f"{shown(max(twice, 0))} fetched beyond the container, metadata and TLS "
        f"included; {scene.bench.require_unharmed(scene.images[NEXT])}"
    )


def return_from_unwell(scene: Scene) -> str:
    """A release the vendor signed, whose service does not start."""
    _release(scene, UNWELL)
    ordered = _order(scene, UNWELL)
    entry = _ended(scene, ordered)
    _require_end(entry, "rolled_back", "device.boot")
    _require_reported(scene, ordered, "rolled_back")
    unharmed = scene.bench.require_unharmed(scene.images[NEXT])
    said = " ".join(entry["detail"].split())
    return f"{entry['code']}: {said}; back by itself: {unharmed}"


# ── shared ───────────────────────────────────────────────────────────────────────────
def _release(scene: Scene, version: str) -> list[str]:
    packed = scene.desk.pack(scene.images[version], COUNTERS[version])
    told = scene.desk.sign(packed)
    scene.desk.publish(packed, scene.server)
    scene.packed[version] = packed
    return told


def _order(scene: Scene, version: str) -> Ordered:
    known = frozenset(str(entry.get("id")) for entry in scene.bench.history())
    before = scene.relay.received
    deployment = order(scene.run, scene.server, f"{PRODUCT}-{version}", DEVICE)
    scene.bench.poll()
    return Ordered(version, deployment, known, before)


def _came(scene: Scene, ordered: Ordered) -> int:
    """Bytes that reached the device since the order; shown as progress."""
    total = scene.packed[ordered.version].length
    came = scene.relay.received - ordered.before
    scene.watch.report(f"install {ordered.version}", min(came, total), total)
    return came


def _ended(scene: Scene, ordered: Ordered) -> dict[str, Any]:
    """Wait until the device is done with an order; its own entry about it."""
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        _came(scene, ordered)
        found[:] = [
            entry
            for entry in scene.bench.history()
            if entry.get("release") == ordered.version
            and str(entry.get("id")) not in ordered.known
        ]
        return bool(found) and scene.bench.is_at_rest()

    what = f"an end of {ordered.version}"
    wait_for(ended, what, seconds=_STEP_SECONDS, step=0.2)
    if found[-1]["verdict"] != "failed":
        # What a slot held already was not fetched; the image is there all the same.
        total = scene.packed[ordered.version].length
        scene.watch.report(f"install {ordered.version}", total, total)
    return found[-1]


def _require_end(entry: dict[str, Any], verdict: str, code: str | None) -> None:
    got = (entry["verdict"], entry["code"])
    require(
        got == (verdict, code),
        f"the device says {entry['verdict']} ({entry['code']}): {entry['detail']}",
    )


def _require_reported(scene: Scene, ordered: Ordered, state: str) -> None:
    """The server learns the end from the device's signed report."""
    known: list[str] = []

    def told() -> bool:
        known[:] = scene.server.installations(ordered.deployment)
        return known == [state]

    wait_for(told, f"a report of {state}", seconds=_STEP_SECONDS, step=0.5)


def _refused(scene: Scene, code: str, act: Callable[[], object]) -> str:
    """Do ``act`` and wait until the device has refused what came of it, by ``code``."""
    before = scene.bench.history()
    act()
    scene.bench.poll()
    seen: list[dict[str, Any]] = []

    def refused() -> bool:
        seen[:] = [e for e in scene.bench.history() if e not in before]
        return any(not str(e["code"]).startswith("transport.") for e in seen)

    wait_for(refused, f"a refusal by {code}", seconds=_STEP_SECONDS, step=0.5)
    last = next(e for e in seen if not str(e["code"]).startswith("transport."))
    require(last["code"] == code, f"{last['verdict']} by {last['code']}, not {code}")
    return f"refused: {last['detail']} [{code}]"


STEPS = (
    Step("images", "real, bootable file systems from packages", build_images),
    Step("server", "own secrets; nobody gets in unknown", start_server),
    Step("keys", "2 of 3 offline keys, encrypted", make_keys),
    Step("device", f"{HOME} from the factory runs and is well", make_device),
    Step("release", "signed offline by two people, published", release),
    Step("update", f"{GOOD} confirmed from inside, reported", update),
    Step("forged", "metadata.signature; nothing installed", refuse_forged),
    Step("rolled back", "metadata.rollback; nothing installed", refuse_replayed),
    Step("tampered", "payload.digest; the device runs on", refuse_tampered),
    Step("killed", "SIGKILL in an install; finishes, little twice", survive_kill),
    Step("unhealthy", f"health check fails, back to {NEXT}", return_from_unwell),
    Step("downgrade", "metadata.counter; nothing installed", refuse_downgrade),
)
