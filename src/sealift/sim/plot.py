"""The demo's steps in order: what each does, and what must come of it.

A step returns what was observed in words, or raises. Who acts is in ``stage`` and
``bench``, what the villain does in ``mischief``; how steps are run and told is in
``demo``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sealift.core.types import SEGMENT_SIZE
from sealift.sim import ext4, mischief, thrift
from sealift.sim.bench import DEVICE
from sealift.sim.images import Builder, Image
from sealift.sim.processes import wait_for
from sealift.sim.scene import STEP_SECONDS, Scene
from sealift.sim.stage import require, send, shown

__all__ = ["STEPS", "Step"]

HOME, GOOD, NEXT, UNWELL = "1.0.0", "1.1.0", "1.2.0", "1.3.0"
FIXED, MENDED, SECRET = "1.4.0", "1.5.0", "1.6.0"
COUNTERS = {HOME: 1, GOOD: 2, NEXT: 3, UNWELL: 4, FIXED: 5, MENDED: 6, SECRET: 7}
"""The release counter of each version; it never goes down on a device."""
UPDATED = frozenset({FIXED, MENDED, SECRET})
"""Versions with the newer packages."""

TWICE_MAX = SEGMENT_SIZE + 256 * 1024
"""Bytes a cut may cost: a segment between socket and medium; and what is no container:
metadata and TLS once more."""

_SLOW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its name, what must come of it, and the act that tells what did."""

    name: str
    required: str
    act: Callable[[Scene], str]


# ── the honest part ──────────────────────────────────────────────────────────────────
def build_images(scene: Scene) -> str:
    """File systems of one product; one of them cannot start its service."""
    tools = ext4.find(scene.work / "tools", scene.watch.say)
    builder = Builder(scene.work, scene.profile, tools, scene.watch.say)
    pools = builder.pools()
    for version in COUNTERS:
        pool = pools.newer if version in UPDATED else pools.older
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
    bench, image = scene.bench, scene.images[HOME]
    made_with = scene.desk.pack(image, COUNTERS[HOME]).directory
    bench.provision(scene.server, scene.desk.directory, scene.relay.port, made_with)
    bench.install_at_the_factory(image)
    bench.power_on()
    bench.require_known(HOME)
    return bench.require_unharmed(image)


def release(scene: Scene) -> str:
    """The first release: packed, read, signed by two people, published."""
    told = scene.release(GOOD, COUNTERS[GOOD])
    packed = scene.packed[GOOD]
    saved = 100 - 100 * packed.length // scene.images[GOOD].length
    return (
        f"{packed.id}: container of {shown(packed.length)} ({saved} % less than the "
        f"image), signed by two of three after reading {len(told)} findings"
    )


def update(scene: Scene) -> str:
    """The whole way, from order to report."""
    scene.old_metadata = mischief.recorded(scene.server, DEVICE)
    ordered = scene.order(GOOD)
    scene.require_end(scene.ended(ordered), "succeeded", None)
    scene.require_reported(ordered, "succeeded")
    return f"{scene.bench.require_unharmed(scene.images[GOOD])}; its report says so"


# ── the attacks ──────────────────────────────────────────────────────────────────────
def refuse_forged(scene: Scene) -> str:
    """Everything re-signed, served from the server's own address."""
    malware = scene.server.directory.with_name("malware.img")
    malware.write_bytes(b"not by the vendor\n" * 4096)
    image = Image(malware, "9.9.9", malware.stat().st_size, "")
    forger, release_id = mischief.forge(scene.run, scene.server, image)
    send(scene.run, forger, release_id, DEVICE)
    seen = scene.require_refusal(
        "metadata.signature", lambda: scene.relay.turn(forger.device_port)
    )
    scene.relay.turn(scene.server.device_port)
    forger.stop()
    return f"{seen}; {scene.bench.require_unharmed(scene.images[GOOD])}"


def refuse_replayed(scene: Scene) -> str:
    """Metadata that was valid once, served again from the server's own address."""
    with mischief.replaying(scene.server, scene.old_metadata) as port:
        seen = scene.require_refusal(
            "metadata.rollback", lambda: scene.relay.turn(port)
        )
        scene.relay.turn(scene.server.device_port)
    return f"{seen}; {scene.bench.require_unharmed(scene.images[GOOD])}"


def refuse_tampered(scene: Scene) -> str:
    """One flipped byte in the container on the server's disk."""
    scene.release(NEXT, COUNTERS[NEXT])
    blob = scene.server.blob(scene.packed[NEXT].sha256)
    mischief.flip(blob)
    scene.bench.erase_other_slot()
    ordered = scene.order(NEXT)
    entry = scene.ended(ordered)
    mischief.flip(blob)
    scene.require_end(entry, "failed", "payload.digest")
    scene.require_reported(ordered, "failed")
    unharmed = scene.bench.require_unharmed(scene.images[GOOD])
    return f"{entry['code']} while {entry['stage']}, reported; {unharmed}"


def refuse_downgrade(scene: Scene) -> str:
    """An honest older release, ordered with the server's own keys."""
    mischief.forget(scene.server)
    seen = scene.require_refusal("metadata.counter", lambda: scene.order(GOOD))
    return f"{seen}; {scene.bench.require_unharmed(scene.images[SECRET])}"


# ── what goes wrong by itself ────────────────────────────────────────────────────────
def survive_kill(scene: Scene) -> str:
    """SIGKILL while half of an image has come over a slow link."""
    packed, relay = scene.packed[NEXT], scene.relay
    scene.bench.erase_other_slot()
    relay.rate = int(packed.length / _SLOW_SECONDS)
    ordered = scene.order(NEXT)

    def arrived() -> bool:
        return scene.came(ordered) > packed.length // 2

    wait_for(arrived, "half of the container", seconds=STEP_SECONDS, step=0.02)
    state = scene.bench.look().state
    require(state == "staging", f"the device was {state}, not in the middle of it")
    came = scene.came(ordered)
    pid = scene.bench.kill()
    relay.rate = 0
    scene.require_end(scene.ended(ordered), "succeeded", None)
    twice = scene.came(ordered) - packed.length
    require(twice <= TWICE_MAX, f"{shown(twice)} more than the container were fetched")
    return (
        f"agent {pid} killed after {shown(came)} of {shown(packed.length)}; "
        f"{shown(max(twice, 0))} fetched beyond the container, metadata and TLS "
        f"included; {scene.bench.require_unharmed(scene.images[NEXT])}"
    )


def return_from_unwell(scene: Scene) -> str:
    """A release the vendor signed, whose service does not start."""
    scene.release(UNWELL, COUNTERS[UNWELL])
    ordered = scene.order(UNWELL)
    entry = scene.ended(ordered)
    scene.require_end(entry, "rolled_back", "device.boot")
    scene.require_reported(ordered, "rolled_back")
    unharmed = scene.bench.require_unharmed(scene.images[NEXT])
    said = " ".join(entry["detail"].split())
    return f"{entry['code']}: {said}; back by itself: {unharmed}"


# ── less to carry, and nothing to read ───────────────────────────────────────────────
def update_by_delta(scene: Scene) -> str:
    """From now on the server makes deltas; this one is the way to newer packages."""
    thrift.make_deltas(scene)
    return thrift.by_delta(scene, FIXED, COUNTERS[FIXED])


def update_from_modified(scene: Scene) -> str:
    """The running slot is not what was installed: somebody wrote into it."""
    return thrift.from_modified(scene, MENDED, COUNTERS[MENDED])


def update_sealed(scene: Scene) -> str:
    """A release nobody can read on the way, by a delta nobody can read either."""
    return thrift.sealed(scene, SECRET, COUNTERS[SECRET], MENDED)


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
    Step("delta", f"{FIXED} by a delta, a fraction of its bytes", update_by_delta),
    Step("modified base", "healed from the full container", update_from_modified),
    Step("encrypted", "only ciphertext leaves the desk", update_sealed),
    Step("downgrade", "metadata.counter; nothing installed", refuse_downgrade),
)
