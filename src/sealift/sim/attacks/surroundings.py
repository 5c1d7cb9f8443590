"""Rows D-09 to D-12 and D-17: what surrounds the agent on its device."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent.boot.file import open_store
from sealift.sim.attacks.boxes import ordered
from sealift.sim.attacks.outcome import broken, observe
from sealift.sim.attacks.real import (
    AGENT,
    CLEAN,
    SECONDS,
    RealDevice,
    real_device,
    said,
    tree,
)
from sealift.sim.attacks.simulated import RESTART, SLOT_BYTES
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene
from sealift.sim.processes import program
from sealift.sim.vendor import make_release

if TYPE_CHECKING:
    import subprocess

    from sealift.core.types import Slot

LATE = ("tomllib", "http", "ssl")
EARLY = ("sitecustomize", "usercustomize", "argparse", "os", "sealift", *LATE)
"""Modules the agent or its interpreter imports; the late ones after its first line."""
LIBRARIES = ("libanl.so.1", "libBrokenLocale.so.1", "libthread_db.so.1")
"""Libraries that come with the C library and that nothing of ours ever loads."""


# ── D-09: no room ────────────────────────────────────────────────────────────────────
def attack_d_09(ground: Ground) -> Observed:
    """An image larger than the slot; a file system that takes no more bytes."""
    full = [_no_room_beyond(most) for most in (0, 100, 500, 1000)]
    return ground.observed(ground.each([_too_large, *full]))


def _too_large(scene: Scene) -> str:
    content = bytes(SLOT_BYTES) + b"one more"
    made = scene.vendor.release(make_release("1.3", 3, content=content))
    return _nothing_erased(scene, lambda: ordered(made)(scene))


def _no_room_beyond(most: int) -> Plan:
    """No file may grow beyond so many bytes, as on a disk or a quota that is full.

    Fewer than the first record needs: a slot has its room already, but here it is a
    file as well, and a limit that let the install begin would stop it in the slot.
    """

    def act(scene: Scene) -> str:
        def limited() -> str:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)

            def fill_up(_slot: Slot) -> bool:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
                return True  # the loader has written, now the agent starts

            scene.device.boots = fill_up
            try:
                return scene.device.cycle().outcome
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                scene.device.boots = lambda _slot: True

        return _nothing_erased(scene, limited)

    return act


def _nothing_erased(scene: Scene, act: Callable[[], str]) -> str:
    slot = scene.device.path(f"slots/{scene.device.running.other}")
    store = open_store(str(scene.device.path("boot")))
    before = slot.read_bytes(), store.read()
    outcome = act()
    if (slot.read_bytes(), store.read()) != before:
        scene.faults.append("something was erased")
    return outcome


# ── D-10: files ──────────────────────────────────────────────────────────────────────
def attack_d_10(ground: Ground) -> Observed:
    """Modes, links and owners of what the agent believes; then a hostile umask."""
    harmed = [
        *(_harmed("state", harm) for harm in (_open_up, _link)),
        *(_harmed("state/index", harm) for harm in (_open_up, _link)),
        *(_harmed("report.pem", harm) for harm in (_let_read, _open_up, _link)),
        *(_harmed("agent.toml", harm) for harm in (_open_up, _link)),
        *(_harmed("anchors/image.json", harm) for harm in (_open_up, _link)),
        _harmed("anchors", _open_up),
        *(_sealed(name, harm) for name in _SEALED for harm in (_open_up, _link)),
        _sealed("store.key", _let_read),
    ]
    return ground.observed(
        ground.each(harmed), ground.each([_hostile_umask, _planted_links])
    )


_SEALED = ("store.key", "state/journal.0", "state/floors.0", "state/index")


def _open_up(path: Path) -> None:
    path.chmod(0o777 if path.is_dir() else 0o666)


def _let_read(path: Path) -> None:
    path.chmod(0o644)


def _link(path: Path) -> None:
    moved = path.with_name(f"{path.name}.moved")
    path.rename(moved)
    path.symlink_to(moved)


def _harmed(name: str, harm: Callable[[Path], None]) -> Plan:
    def act(scene: Scene) -> str:
        path, before = scene.device.path(name), observe(scene.device)
        mode = path.stat().st_mode
        harm(path)
        outcome = scene.device.cycle().outcome
        if path.is_symlink():
            moved = path.readlink()
            path.unlink()
            moved.rename(path)
        path.chmod(mode & 0o777)
        scene.faults += broken(before, observe(scene.device), scene.vendor.said)
        return outcome

    return act


def _sealed(name: str, harm: Callable[[Path], None]) -> Plan:
    """The same where the state is sealed with a key."""

    def act(scene: Scene) -> str:
        scene.device.seal_state()
        scene.catch_up()
        return _harmed(name, harm)(scene)

    return act


def _hostile_umask(scene: Scene) -> str:
    """Whoever starts us lets everybody write everything: ours stays ours."""
    before = os.umask(0)
    try:
        outcome = scene.attempt()
    finally:
        os.umask(before)
    state = scene.device.path("state")
    for path in (state, *state.iterdir()):
        if path.stat().st_mode & 0o077:
            scene.faults.append(f"{path.name} is open to others")
    return outcome


def _planted_links(scene: Scene) -> str:
    """Links under the names the agent is going to write: nothing goes through them."""
    victim = scene.directory / "victim"
    victim.write_bytes(b"as it was")
    for name in ("index.new", "journal.new", "floors.new", "payload.spent"):
        scene.device.path(f"state/{name}").symlink_to(victim)
    outcome = scene.attempt()
    if victim.read_bytes() != b"as it was":
        scene.faults.append("a file outside was written through a link")
    return outcome


# ── D-11, D-12: the process ──────────────────────────────────────────────────────────
def attack_d_11(ground: Ground) -> Observed:
    """Every socket of every process of the agent, from its start to its restart."""
    with real_device(ground.directory / "d-11", ground.faults) as device:
        agent = device.start()
        pids = device.while_it_runs(agent)
        seen = {found for pid in pids for found in sockets(pid)}
        ground.faults += _ended_well(agent, device)
        device.check()
    open_ones = {it for it in seen if it[0] != "tcp" or it[1] == LISTENING}
    if not seen:
        return ground.observed("not even its own connection was seen")
    return ground.observed(f"{sorted(open_ones)}" if open_ones else "no listener")


LISTENING = "0A"
_TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix")


def sockets(pid: int) -> Iterator[tuple[str, str]]:
    """Table and state of each socket of a process, as the kernel shows them."""
    try:
        links = [str(it.readlink()) for it in Path(f"/proc/{pid}/fd").iterdir()]
        own = {it[8:-1] for it in links if it.startswith("socket:[")}
        for table in _TABLES:
            lines = Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()
            inode, state = (6, 5) if table == "unix" else (9, 3)
            for words in map(str.split, lines[1:]):
                if words[inode] in own:
                    yield table, words[state]
    except OSError:
        return  # it has ended meanwhile


def _ended_well(agent: subprocess.Popen[bytes], device: RealDevice) -> Iterator[str]:
    """An agent that has installed a release asks for a restart."""
    if agent.returncode != RESTART:
        yield f"the agent ended with {agent.returncode}: {device.log[-300:]}"


def attack_d_12(ground: Ground) -> Observed:
    """Variables that run code or lead astray, at each way to start the agent."""
    with real_device(ground.directory / "d-12-a", ground.faults) as device:
        injected = _injected(device, AGENT, EARLY)
        ground.faults += _foreign_libraries(device)
    with real_device(ground.directory / "d-12-b", ground.faults) as device:
        plain = (str(program("sealift-agent")),)
        bare = _injected(device, plain, LATE)
    with real_device(ground.directory / "d-12-c", ground.faults) as device:
        device.config.chmod(0o666)
        writable = said(device.once("check"))
        device.config.chmod(0o600)
    cases = injected if injected == bare else f"{injected} | {bare}"
    return ground.observed(cases, writable)


def _injected(device: RealDevice, argv: Sequence[str], modules: Sequence[str]) -> str:
    """One install in a hostile environment; whether anything foreign ran in it."""
    evil, marker = device.directory / "evil", device.directory / "ran"
    evil.mkdir()
    for name in modules:
        (evil / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    for name in ("sh", "python3", "openssl"):
        (evil / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (evil / name).chmod(0o755)
    outcome = device.check(argv=argv, env=hostile(evil))
    return f"{outcome}, and foreign code ran" if marker.exists() else outcome


def hostile(evil: Path) -> dict[str, str]:
    """Variables a local user might get into the environment of the agent."""
    nowhere = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **dict.fromkeys(names, nowhere),
        "PATH": str(evil),
        "PYTHONPATH": str(evil),
        "PYTHONSTARTUP": str(evil / "argparse.py"),
        "PYTHONPYCACHEPREFIX": str(evil),
        "PYTHONUSERBASE": str(evil),
        "TMPDIR": str(evil / "absent"),
        "HOME": str(evil),
        "SSL_CERT_FILE": "/nowhere",
        "SSL_CERT_DIR": "/nowhere",
        "OPENSSL_CONF": str(evil / "openssl.cnf"),
        "SSLKEYLOGFILE": str(evil.parent / "ran"),
        "LANG": "xx_XX.UTF-99",
    }


def _foreign_libraries(device: RealDevice) -> Iterator[str]:
    """A preloaded library is gone from the agent that works, however it was started."""
    preload = _library()
    if preload is None:
        yield "no library was found to preload"
        return
    agent = device.start(env={**CLEAN, "LD_PRELOAD": str(preload)})
    device.wait("info start")
    for pid in tree(agent.pid):
        maps = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")
        if preload.name in maps:
            yield f"{preload.name} is loaded"


def _library() -> Path | None:
    """A library beside the C library that is not loaded by itself."""
    maps = Path("/proc/self/maps").read_text("utf-8", "replace").split()
    homes = {Path(it).parent for it in maps if Path(it).name.startswith("libc.so")}
    found = (home / name for home in homes for name in LIBRARIES)
    return next((path for path in found if path.exists()), None)


# ── D-17: two at a time ──────────────────────────────────────────────────────────────
def attack_d_17(ground: Ground) -> Observed:
    """A second agent beside the first; signals by the hundred while it installs."""
    with real_device(ground.directory / "d-17-a", ground.faults) as device:
        agent = device.start()
        device.wait("info start")
        seconds = [said(device.once(face)) for face in ("check", "run")]
        agent.wait(SECONDS)  # the first one goes on, and is not disturbed
        ground.faults += _ended_well(agent, device)
        device.check()
    with real_device(ground.directory / "d-17-b", ground.faults) as device:
        agent = device.start()
        device.wait("info start")
        count = _storm(agent, device)
        ground.faults += _ended_well(agent, device)
        outcome = device.check()
        if count < 100 or device.log.count("state=staging") != 1:
            ground.faults.append(f"{count} signals, then {device.log[-300:]}")
    return ground.observed(" | ".join(dict.fromkeys(seconds)), outcome)


def _storm(agent: subprocess.Popen[bytes], device: RealDevice) -> int:
    """Hints to parent and child until the agent ends; how many there were."""
    count = 0
    for pid in filter(_hears, device.while_it_runs(agent)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
        count += 1
    return count


def _hears(pid: int) -> bool:
    """Whether a process has its handler already; it is not one of ours before that."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
        caught = text.partition("SigCgt:")[2].split()[0]
        return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)
    return False
