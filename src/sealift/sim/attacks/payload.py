"""Rows C-01, C-02, C-07, C-08 and C-11 to C-13: from the wire into the slot."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sealift.agent.payload import PayloadFill
from sealift.core.packer import pack_full
from sealift.sim import network
from sealift.sim.attacks import boots
from sealift.sim.attacks.boxes import Box, ordered
from sealift.sim.attacks.containers import NEXT_COUNTER, Filling, waiting
from sealift.sim.attacks.forge import Change, Json
from sealift.sim.attacks.simulated import SLOT_BYTES
from sealift.sim.attacks.world import (
    INSTALLED,
    Ground,
    Observed,
    Plan,
    Scene,
    each,
)
from sealift.sim.flash import Killed
from sealift.sim.network import Request, Response, Server, on
from sealift.sim.vendor import HARDWARE, PRODUCT, Release, make_release

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.agent.ports import SlotDevice, Transport, Workspace
    from sealift.core.types import Instruction
    from sealift.sim.network import Attacker

BOXES = "director/targets/*"
HEAD_FILE = "state/payload.head"
STAGED = "state=staged"


def frames_only(request: Request) -> bool:
    """Whether a request for a container is for what follows its head."""
    return request.span is not None and request.span[0] > 0


def at_frames(act: Callable[[], None]) -> Attacker:
    """Do this once, when the head is verified and the first frames are asked for."""
    done: list[bool] = []

    def attack(request: Request, response: Response) -> Response:
        if frames_only(request) and not done:
            done.append(True)
            act()
        return response

    return on(BOXES, attack)


# ── C-01: by path, between check and use ─────────────────────────────────────────────
def attack_c_01(ground: Ground) -> Observed:
    """The verified head's file, then the slot's, replaced by path while in use."""
    return ground.observed(ground.each([_head_replaced, _slot_replaced]))


class Watched:
    """A work file with somebody beside it, who acts once it was read whole: checked."""

    def __init__(self, file: SlotDevice, act: Callable[[], None]) -> None:
        self._file = file
        self._act = act
        self._left = file.size
        self.size = file.size

    def read(self, offset: int, length: int) -> bytes:
        """Of the file; the attacker acts when its last byte was read."""
        found = self._file.read(offset, length)
        before, self._left = self._left, self._left - len(found)
        if before > 0 >= self._left:
            self._act()
        return found

    def write(self, offset: int, data: bytes) -> None:
        """Into the file, which has to be checked again then."""
        self._left = self.size
        self._file.write(offset, data)

    def flush(self) -> None:
        """Of the file."""
        self._file.flush()

    def drop_cache(self) -> None:
        """Of the file."""
        self._file.drop_cache()

    def close(self) -> None:
        """Of the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class WatchedWork:
    """A workspace in which the file of the head is watched."""

    work: Workspace
    act: Callable[[], None]

    def open(self, name: str, length: int) -> SlotDevice:
        """A file, watched if it holds the head."""
        found = self.work.open(name, length)
        return Watched(found, self.act) if HEAD_FILE.endswith(name) else found

    def remove(self, name: str) -> None:
        """Of the workspace."""
        self.work.remove(name)


def _head_replaced(scene: Scene) -> str:
    """A head of the attacker's lies there from the moment the real one was checked."""
    own = waiting().framed(0, bytes(range(256)) * 256).head
    path = scene.device.path(HEAD_FILE)

    def swap() -> None:
        path.unlink()
        path.touch(mode=0o600)
        path.write_bytes(own)

    def watched(
        order: Instruction, way: Transport, work: Workspace, **more: Any
    ) -> PayloadFill:
        return PayloadFill(order, way, WatchedWork(work, swap), **more)

    shipped = scene.device.parts
    scene.device.parts = replace(shipped, fill=watched)
    outcome = scene.attempt()
    scene.device.parts = shipped
    return outcome


def _slot_replaced(scene: Scene) -> str:
    """Another file in the slot's place while it is written; put back before the switch.

    Left there, it is D-01: the switch is not written.
    """
    slot = scene.device.path(f"slots/{scene.device.running.other}")
    kept = slot.with_suffix(".kept")

    def swap() -> None:
        slot.rename(kept)
        slot.write_bytes(b"evil".ljust(SLOT_BYTES, b"!"))

    def back(line: str) -> None:
        if STAGED in line and kept.exists():
            kept.rename(slot)

    scene.device.heard = back
    return scene.attempt(at_frames(swap))


# ── C-02: beyond 2^31 and 2^32 ───────────────────────────────────────────────────────
BEYOND = (2**31 + 1, 2**32 + 1)
LAST = b"\x5a"


def attack_c_02(ground: Ground) -> Observed:
    """Sparse images whose last byte is flipped, on the way and by a stolen Director.

    The control, the honest bytes into a slot of that size, has to get its last byte.
    """
    sizes = [_sparse(length) for length in BEYOND]
    ground.faults += _control(ground.directory, sizes)
    mirror = [_into_large_slot(made, _flipped_on_the_way(made)) for made in sizes]
    director = _into_large_slot(sizes[0], ordered(_flipped(sizes[0])))
    return ground.observed(ground.each([*mirror, director]))


def _sparse(length: int) -> Release:
    """Zeros, and one byte behind them. ``content`` is no more than a name for it."""

    def read_at(offset: int, count: int) -> bytes:
        return bytes(count - 1) + LAST if offset + count == length else bytes(count)

    out = io.BytesIO()
    packed = pack_full(read_at, length, spool=io.BytesIO(), out=out)
    artifact = packed.artifact(
        f"{PRODUCT}/main-{length}.img",
        hardware_ids=(HARDWARE,),
        release_counter=NEXT_COUNTER,
        version=str(length),
    )
    name = f"sparse-{length}"
    return Release(
        artifact, packed.container(f"{name}.full"), name.encode(), out.getvalue()
    )


def _control(directory: Path, sizes: list[Release]) -> Iterator[str]:
    for made in sizes:
        fill = Filling(directory / made.container.name, made)
        found = fill(made.packed, made.container)
        with fill.slot.open("rb") as slot:
            slot.seek(made.artifact.length - 1)
            if found != "filled" or slot.read() != LAST:
                yield f"the control of {made.artifact.length} bytes: {found}"


def _into_large_slot(made: Release, plan: Plan) -> Plan:
    """The plan, while the slot that does not run is as large as the image."""

    def act(scene: Scene) -> str:
        scene.vendor.release(made)
        slot = scene.device.path(f"slots/{scene.device.running.other}")
        with slot.open("r+b") as file:
            file.truncate(made.artifact.length)
        outcome = plan(scene)
        with slot.open("r+b") as file:
            file.seek(-1, io.SEEK_END)
            if file.read() != b"\0":
                scene.faults.append("the flipped byte was written")
            file.truncate(SLOT_BYTES)
        return outcome

    return act


def _flipped_on_the_way(made: Release) -> Plan:
    def flip(request: Request, response: Response) -> Response:
        if not frames_only(request):
            return response
        body = response.body[:-1] + bytes([LAST[0] ^ 1])
        return Response(response.status, response.headers, (body,))

    def act(scene: Scene) -> str:
        honest = scene.vendor.orders["dev-0001"]
        scene.order(made.order(scene.device.ecu_id))
        outcome = scene.attempt(on(BOXES, flip))
        scene.require_unusable()
        scene.order(*honest)
        return outcome

    return act


def _flipped(made: Release) -> Release:
    box = Box.of(made)
    return box.framed(len(box.frames) - 1, bytes([LAST[0] ^ 1])).close()


# ── C-07: names that would do something ──────────────────────────────────────────────
def attack_c_07(ground: Ground) -> Observed:
    """Names of containers; then handlers, scripts and types that nobody asked for."""
    names = ("../../x", "/bin/sh", "x/../../y", "..", "-rf", "$(reboot)", "a;b", "|sh")
    return ground.observed(
        ground.each(changed_order(_named(name)) for name in names),
        ground.play(_handled),
    )


def _named(name: str) -> Change:
    return lambda ecu: ecu["payload"]["full"].update(name=name)


def changed_order(change: Change) -> Plan:
    """The order of the one component changed, signed by the real keys."""

    def entry(signed: Json) -> None:
        for target in signed["targets"].values():
            for ecu in target["custom"]["ecus"].values():
                change(ecu)

    def act(scene: Scene) -> str:
        files = scene.forger("director").chain({"targets": entry})
        return scene.attempt(scene.serve("director", files, stolen=True))

    return act


def _handled(scene: Scene) -> str:
    """What other updaters would look up or run; here it has no effect (A-25)."""
    marker = scene.directory / "ran"
    script = ["/bin/sh", "-c", f"touch {marker}"]

    def change(ecu: Json) -> None:
        ecu |= {"handler": "../../x", "type": "script", "installer": script}
        ecu["payload"] |= {"type": "../../x", "preinst": script}
        ecu["payload"]["full"] |= {"handler": "shellscript", "hook": script}

    outcome = changed_order(change)(scene)
    return f"{outcome}, and something ran" if marker.exists() else outcome


# ── C-08, C-11: what is parsed, what is used ─────────────────────────────────────────
def attack_c_08(ground: Ground) -> Observed:
    """Junk whose hash is wrong: its parser, which would say otherwise, sees none."""
    junk: list[Callable[[bytes], bytes]] = [
        lambda body: b"\xff" * len(body),
        lambda body: bytes(len(body)),
        lambda body: body[::-1],
        lambda body: body[:-1] + b"\x01",
    ]
    heads = [_spoiled(it, head=True) for it in junk]
    frames = [_spoiled(it, head=False) for it in junk]
    return ground.observed(
        each([ground.each([_would_be_refused, *heads]), ground.together(frames)])
    )


def _spoiled(change: Callable[[bytes], bytes], *, head: bool) -> Plan:
    def spoil(request: Request, response: Response) -> Response:
        if frames_only(request) is head:
            return response
        return Response(response.status, response.headers, (change(response.body),))

    def act(scene: Scene) -> str:
        outcome = scene.attempt(on(BOXES, spoil))
        scene.require_unusable()
        scene.vendor.refresh(anew=True)  # or what failed is not tried again
        return outcome

    return act


def _would_be_refused(scene: Scene) -> str:
    """With hashes that fit, the same junk does reach its parser, which refuses it."""
    box = waiting()
    junk = box.framed(len(box.frames) - 1, b"\xff" * len(box.frames[-1]))
    scene.require(ordered(junk.close())(scene), "payload.patch")
    bad = replace(box, header=replace(box.header, count=7))
    scene.require(ordered(bad.close())(scene), "payload.container")
    return _spoiled(lambda body: b"\xff" * len(body), head=False)(scene)


def attack_c_11(ground: Ground) -> Observed:
    """Files that change after they were fetched; a kept head, the agent being dead.

    Then boot files that admit another root than the one they lie beside.
    """
    return ground.observed(
        ground.each([_only_once, _other_head_kept]), ground.each(boots.MISMATCHED)
    )


def _only_once(scene: Scene) -> str:
    """Whoever asks a second time gets a signed file of another order, and is not us."""
    other = scene.forger("director").chain({"targets": _another_order(scene)})
    evil = scene.serve("director", other)
    seen: set[str] = set()

    def attacker(server: Server, request: Request) -> Response:
        again = request.path.startswith("director/metadata/") and request.path in seen
        seen.add(request.path)
        if again:
            scene.faults.append(f"{request.path} was asked for twice")
        return evil(server, request) if again else server(request)

    def restarted(line: str) -> None:
        if "state=rebooting" in line:  # a new life asks anew, and may
            seen.clear()

    scene.device.heard = restarted
    outcome = scene.attempt(attacker)
    wanted = scene.next.artifact.sha256
    return outcome if scene.runs() == wanted else f"{outcome}, but not what was ordered"


def _another_order(scene: Scene) -> Change:
    def change(signed: Json) -> None:
        [entry] = signed["targets"].values()
        signed["targets"] = {scene.first.artifact.name: entry}

    return change


def _other_head_kept(scene: Scene) -> str:
    """The head of another release in the place of the one that was verified."""
    interrupted(scene)
    path = scene.device.path(HEAD_FILE)
    if not path.exists():
        return "no head was kept"
    path.write_bytes(Box.of(scene.first).head)
    return scene.attempt()


def interrupted(scene: Scene) -> None:
    """The agent is killed when it has the head and asks for frames."""

    def kill() -> None:
        raise Killed

    try:
        with scene.attacked(at_frames(kill)):
            scene.device.cycle()
    except Killed:
        return
    scene.faults.append("the agent was not killed")


# ── C-12, C-13: digests ──────────────────────────────────────────────────────────────
def attack_c_12(ground: Ground) -> Observed:
    """Digests spelled, cut, typed otherwise, missing; then one of a new algorithm."""
    odd: list[Callable[[str], object]] = [
        lambda text: f" {text}",
        lambda text: f"{text} ",
        str.upper,
        lambda text: text[:12],
        lambda text: text[:-1],
        lambda text: f"{text}00",
        lambda text: f"0x{text}",
        lambda text: f"sha256:{text}",
        lambda _: "",
        lambda _: None,
        lambda _: 0,
        lambda text: [text],
        lambda text: {"sha256": text},
    ]
    plans = {
        repository: [
            *(_odd(repository, spot, value) for spot in spots for value in odd),
            *(_missing(repository, spot) for spot in spots),
            _odd_hashes(repository, {"md5": "0" * 32}),
            _odd_hashes(repository, {}),
        ]
        for repository, spots in _SPOTS.items()
    }
    return ground.observed(
        each(ground.together(several) for several in plans.values()),
        ground.play(_unknown_algorithm),
    )


Spot = tuple[str, ...]
_SPOTS: dict[str, tuple[Spot, ...]] = {
    "director": (
        ("hashes", "sha256"),
        ("custom", "ecus", "*", "payload", "full", "sha256"),
        ("custom", "ecus", "*", "payload", "full", "head_sha256"),
    ),
    "image": (("hashes", "sha256"), ("custom", "payload", "segment_root")),
}
"""Where a digest stands in an entry of Targets; ``*`` is any member."""


def _holder(entry: Json, spot: Spot) -> Json:
    for name in spot[:-1]:
        entry = next(iter(entry.values())) if name == "*" else entry[name]
    return entry


def _entries(repository: str, change: Change) -> Plan:
    """Every entry of a repository's Targets changed, signed by the real keys."""

    def all_entries(signed: Json) -> None:
        for entry in signed["targets"].values():
            change(entry)

    def act(scene: Scene) -> str:
        files = scene.forger(repository).chain({"targets": all_entries})
        return scene.attempt(scene.serve(repository, files, stolen=True))

    return act


def _odd(repository: str, spot: Spot, odd: Callable[[str], object]) -> Plan:
    def change(entry: Json) -> None:
        holder = _holder(entry, spot)
        holder[spot[-1]] = odd(holder[spot[-1]])

    return _entries(repository, change)


def _missing(repository: str, spot: Spot) -> Plan:
    return _entries(repository, lambda entry: _holder(entry, spot).pop(spot[-1]))


def _odd_hashes(repository: str, hashes: Json) -> Plan:
    return _entries(repository, lambda entry: entry.update(hashes=hashes))


def _unknown_algorithm(scene: Scene) -> str:
    """Both repositories agree on a hash this agent does not know, and a good one."""

    def change(signed: Json) -> None:
        for entry in signed["targets"].values():
            entry["hashes"]["sha4-256"] = "0" * 64

    attackers = [
        scene.serve(name, scene.forger(name).chain({"targets": change}), stolen=True)
        for name in ("director", "image")
    ]
    return scene.attempt(*attackers)


TWINS = (
    b"an image whose digest is not alone: 883c53e71ce2",
    b"an image whose digest is not alone: e898730206c5",
)
"""Both SHA-256 digests begin with 3c4716c8f3f2, found by walking 2^22 images."""


def attack_c_13(ground: Ground) -> Observed:
    """Two images with one short id, the second ordered in every state of the first."""
    short = {sha256(content).hexdigest()[:12] for content in TWINS}
    if len(short) != 1:
        ground.faults.append("the twins are none")
    return ground.observed(
        ground.each([_after(_runs), _after(_refused), _after(_interrupted)])
    )


def _after(first: Callable[[Scene], None]) -> Plan:
    def act(scene: Scene) -> str:
        twins = [
            scene.vendor.release(make_release(f"3.{n}", 4 + n, content=content))
            for n, content in enumerate(TWINS)
        ]
        scene.order(twins[0].order(scene.device.ecu_id))
        first(scene)
        scene.order(twins[1].order(scene.device.ecu_id))
        lived = scene.attempted()  # which ends what is under way, if anything is
        if scene.runs() != twins[1].artifact.sha256:
            return f"{lived.outcome}, and the twin runs"
        return INSTALLED if lived.installed else lived.outcome

    return act


def _runs(scene: Scene) -> None:
    scene.require(scene.attempt(), INSTALLED)


def _refused(scene: Scene) -> None:
    spoil = network.alter(BOXES, lambda body: bytes(len(body)))
    scene.require(scene.attempt(spoil), "payload.digest")


def _interrupted(scene: Scene) -> None:
    interrupted(scene)
