"""What `benchmarks.install` puts in place, and what it runs in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import MIB, cpu_s, peak_rss_mib

IMAGE = 256 * MIB
ZEROS = IMAGE // 4


# ── what is installed ────────────────────────────────────────────────────────────────
def make_image(path: Path, *, length: int = IMAGE, zeros: int = ZEROS) -> None:
    """Real files, one after the other, over and over if need be; then zeros."""
    with path.open("wb") as file:
        left = length - zeros
        while left:
            for found in _real_files():
                left -= file.write(found.read_bytes()[:left])
                if not left:
                    break
        file.truncate(length)


def _real_files() -> Iterator[Path]:
    yield Path(os.path.realpath(sys.executable))
    for place in (sysconfig.get_path("stdlib"), sysconfig.get_config_var("LIBDIR")):
        for found in sorted(Path(place).rglob("*")):
            if found.is_file() and not found.is_symlink() and os.access(found, os.R_OK):
                yield found


def make_noise(path: Path, *, length: int) -> None:
    """Bytes nobody can compress: their frames are stored."""
    with path.open("wb") as file:
        for _ in range(length // MIB):
            file.write(os.urandom(MIB))


def make_zeros(path: Path, *, length: int) -> None:
    """Nothing but a hole."""
    with path.open("wb") as file:
        file.truncate(length)


def make_container(work: Path) -> None:
    """Pack `image` into `x.full` and write what metadata would say to `order.json`.

    Beside it, the slot that runs and a loader that says so.
    """
    from sealift.agent.boot.file import Store, open_store
    from sealift.core.packer import pack_full
    from sealift.core.types import Instruction

    image = work / "image"
    with (
        image.open("rb") as source,
        (work / "spool").open("w+b") as spool,
        (work / "x.full").open("wb") as out,
        ProcessPoolExecutor() as pool,
    ):
        packed = pack_full(
            lambda at, n: os.pread(source.fileno(), n, at),
            image.stat().st_size,
            spool=spool,
            out=out,
            apply=pool.map,
        )
    artifact = packed.artifact(
        "bench/rootfs-1.img", hardware_ids=("bench",), release_counter=1, version="1"
    )
    container = packed.container("x.full")
    order = Instruction("d", "bench", artifact, container, None, None, 1, bytes(32))
    (work / "order.json").write_text(json.dumps(order.to_json()))
    (work / "home").write_bytes(b"what runs")
    open_store(str(work)).write(Store())


def make_old(image: Path, slot: Path) -> None:
    """A slot that holds something else everywhere: an older image, as slots do."""
    with image.open("rb") as new, slot.open("wb") as old:
        while piece := new.read(MIB):
            old.write(bytes(255 - byte for byte in piece[:16]) + piece[16:])
        old.flush()
        os.fsync(old.fileno())


# ── processes of their own ───────────────────────────────────────────────────────────
def child(function: str, *arguments: str) -> dict[str, float]:
    """Run one of the functions below in a fresh process; what it printed."""
    done = subprocess.run(
        _command(function, *arguments), check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _command(function: str, *arguments: str) -> list[str]:
    call = f"import sys; from {__name__} import {function} as f; f(*sys.argv[1:])"
    return [sys.executable, "-c", call, *arguments]


DECODERS = 2
"""``[transfer] decoders``: one for each core here; 1 is the default, and takes 3 MiB
less."""


def device(work: str, pki: str, url: str) -> None:
    """What the agent does, timed; prints one JSON object."""
    from sealift.agent.boot.file import FileBoot, Started, open_store
    from sealift.agent.clock import SystemClock
    from sealift.agent.install.ab import AbInstaller
    from sealift.agent.payload import PayloadFill
    from sealift.agent.slot import PathSlots, WorkFiles
    from sealift.agent.transport import HttpsTransport, TlsFiles
    from sealift.core.types import Instruction, Slot

    place, ours = Path(work), Path(pki)
    order = Instruction.from_json(json.loads((place / "order.json").read_bytes()))
    names = ("ca.pem", "device.pem", "device.key")
    files = TlsFiles(*(str(ours / name) for name in names))
    slots = PathSlots({Slot.A: str(place / "home"), Slot.B: str(place / "slot")})
    boot = FileBoot(open_store(work), lambda: Started(Slot.A, "bench"))
    installer = AbInstaller(boot, slots, lambda: "bench")
    marks = [(time.perf_counter(), cpu_s(os.getpid()))]

    def fill(into: Any, base: Any, /) -> None:
        way = HttpsTransport(url, files, SystemClock(), floor=lambda: 0)
        PayloadFill(order, way, WorkFiles(work), decoders=DECODERS)(into, base)
        marks.append((time.perf_counter(), cpu_s(os.getpid())))

    installer.stage(order, Slot.B, fill)
    marks.append((time.perf_counter(), cpu_s(os.getpid())))
    began, filled, ended = marks
    found = {
        "total_s": ended[0] - began[0],
        "fill_s": filled[0] - began[0],
        "reread_s": ended[0] - filled[0],
        "cpu_s": ended[1] - began[1],
        "peak_rss_mib": peak_rss_mib(os.getpid()),
    }
    print(json.dumps(found))


@contextmanager
def server(pki: Path, places: list[Path]) -> Iterator[tuple[str, int]]:
    """A server of all these containers: its address and its process."""
    command = _command("serve", str(pki), *map(str, places))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise SystemExit("no pipe to the server")
        yield process.stdout.readline().strip(), process.pid
        process.stdin.close()  # the server ends with its input


def serve(pki: str, *places: str) -> None:
    """Serve the containers until standard input ends; prints its address first."""
    from tests.tls_server import Files, Pki, TlsServer

    files: dict[str, Path | bytes] = {}
    for place in map(Path, places):
        order = json.loads((place / "order.json").read_bytes())
        target = f"/director/targets/{order['full']['sha256']}.x.full"
        files[target] = place / "x.full"
    with TlsServer(Pki(Path(pki)), Files(files)) as found:
        print(found.url, flush=True)
        sys.stdin.read()


def decode(work: str) -> None:
    """Decode every frame in one thread and write nothing; prints the CPU seconds.

    Of the decoder, that is without the kernel's for memory.
    """
    from sealift.core.container import open_head
    from sealift.core.streams import unpack
    from sealift.core.types import Instruction

    place = Path(work)
    order = Instruction.from_json(json.loads((place / "order.json").read_bytes()))
    raw = (place / "x.full").read_bytes()
    head = open_head(lambda at, n: raw[at : at + n], order.artifact, order.full)
    began = os.times().user
    for found in head.segments():
        if found.framed:
            frame = raw[found.frame_offset : found.frame_offset + found.frame_length]
            unpack(frame, found.length)
    print(json.dumps({"decode_cpu_s": os.times().user - began}))
