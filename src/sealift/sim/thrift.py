"""Acts of the demo that save bytes: deltas, one over a modified base, one encrypted."""

from __future__ import annotations

from typing import Any

from sealift.core.types import SEGMENT_SIZE
from sealift.sim.processes import wait_for
from sealift.sim.scene import STEP_SECONDS, Ordered, Scene
from sealift.sim.stage import require, shown

__all__ = ["by_delta", "from_modified", "make_deltas", "sealed"]

BLOCKS = 8
"""Blocks of 4 KiB that one writable mount and a new machine id changed on a real root
file system; here they lie side by side, as the images are small."""


def make_deltas(scene: Scene) -> None:
    """Have the server make deltas from now on; it starts anew for that."""
    scene.server.make_deltas()
    scene.relay.turn(scene.server.device_port)


def by_delta(scene: Scene, version: str, counter: int) -> str:
    """The server makes a delta and offers it, being cheaper; the device takes it."""
    scene.release(version, counter)
    done = _updated(scene, version)
    require(done["repaired"] == 0, f"{done['repaired']} segments came from elsewhere")
    return f"{_saved(scene, version, done)}; {_unharmed(scene, version)}"


def from_modified(scene: Scene, version: str, counter: int) -> str:
    """What the delta cannot make any more comes segment by segment."""
    scene.bench.write_into_running_slot(BLOCKS)
    scene.release(version, counter)
    done = _updated(scene, version)
    require(done["repaired"], "no segment had to be healed")
    return (
        f"{BLOCKS} blocks of the base were written to: {done['repaired']} segments of "
        f"{SEGMENT_SIZE >> 20} MiB healed; {_saved(scene, version, done)}; "
        f"{_unharmed(scene, version)}"
    )


def sealed(scene: Scene, version: str, counter: int, base: str) -> str:
    """The desk encrypts container and delta; the server sees neither in the open."""
    readable = scene.server.readable()
    keys = ("--content-key", scene.server.content_key)
    scene.release(version, counter, *keys, "--base", scene.images[base].path)
    done = _updated(scene, version)
    more = scene.server.readable() - readable
    require(not more, f"{more} of its files can be read by anybody")
    return f"{_saved(scene, version, done)}, sealed; {_unharmed(scene, version)}"


def _updated(scene: Scene, version: str) -> dict[str, Any]:
    """Order a release when its delta is there; how the image came, as reported."""
    wait_for(
        lambda: _is_ready(scene, version), f"a delta to {version}", seconds=STEP_SECONDS
    )
    ordered = scene.order(version)
    scene.require_end(scene.ended(ordered), "succeeded", None)
    scene.require_reported(ordered, "succeeded")
    return _done(scene, ordered)


def _is_ready(scene: Scene, version: str) -> bool:
    wanted = scene.images[version].sha256
    states = {d["state"] for d in scene.server.deltas() if d["new_sha256"] == wanted}
    require(not states & {"failed", "useless"}, f"the delta to {version} is {states}")
    return states == {"ready"}


def _done(scene: Scene, ordered: Ordered) -> dict[str, Any]:
    [found] = scene.server.deployed(ordered.deployment)
    done: dict[str, Any] = found["done"] or {}
    require(done.get("method") == "delta", f"it came as {done.get('method')}")
    return done


def _saved(scene: Scene, version: str, done: dict[str, Any]) -> str:
    full, came = scene.packed[version].length, done["transferred"]
    require(came < full, f"{shown(came)} came, the full container has {shown(full)}")
    return f"{shown(came)} came, {100 * came / full:.1f} % of the full {shown(full)}"


def _unharmed(scene: Scene, version: str) -> str:
    return scene.bench.require_unharmed(scene.images[version])
