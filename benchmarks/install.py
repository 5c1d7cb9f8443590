"""How fast an image reaches a slot: download, verify, write, read back.

The image is 256 MiB: three quarters real files (the Python installation and shared
libraries of this machine, in sorted order), one quarter zeros, as a root file system
with free space has. It is packed with our encoder and served over TLS on loopback by a
small Python file server in a process of its own. The device is a fresh process that
runs what the agent runs: `PayloadFill` over `HttpsTransport` into a slot file that has
another image, then the re-read of the whole slot from the medium.

The peer in the same run is `dd conv=fsync` of the plain image plus `sha256sum` of the
copy: writing and verifying alone, without network or compression. Both are run three
times in turn, and medians are compared. `decode_1_core_mb_per_s` is LZMA alone, in
image bytes: what one core could do at best.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import MIB, Result, cpu_s, peak_rss_mib, ratio, run

IMAGE = 256 * MIB
ZEROS = IMAGE // 4
TIMES = 3
PIECE = 256 * 1024


def measure() -> Result:
    """Measure download + verify + write of one image, against dd and sha256sum."""
    result = Result("install")
    with tempfile.TemporaryDirectory(prefix="sealift-install-") as name:
        work = Path(name)
        make_image(work / "image")
        began = time.perf_counter()
        make_container(work)
        pack_s = time.perf_counter() - began
        ours, peers = _runs(work)
        decode_s = _decode_s(work)
    _fill_in(result, ours, peers)
    mb = IMAGE / 1e6
    result.figures["pack_mb_per_s"] = round(mb / pack_s, 1)
    result.figures["decode_1_core_mb_per_s"] = round(mb / decode_s, 1)
    return result


def _fill_in(
    result: Result, ours: list[dict[str, float]], peers: list[dict[str, float]]
) -> None:
    mb = IMAGE / 1e6
    for name in ("fill_s", "reread_s", "device_cpu_s", "device_peak_rss_mib"):
        result.figures[name] = round(median(one[name] for one in ours), 3)
    for name in ("dd_s", "sha256sum_s"):
        result.peers.setdefault("dd+sha256sum", {})[name] = round(
            median(one[name] for one in peers), 3
        )
    total = median(one["fill_s"] + one["reread_s"] for one in ours)
    peer = median(one["dd_s"] + one["sha256sum_s"] for one in peers)
    result.figures["mb_per_s"] = round(mb / total, 1)
    result.figures["image_mb"] = round(mb, 1)
    result.figures["container_mb"] = round(ours[0]["container_mb"], 1)
    result.figures["server"] = "Python file server in its own process, TLS, loopback"
    result.peers["dd+sha256sum"]["mb_per_s"] = round(mb / peer, 1)
    result.ratios["vs_dd_sha256"] = ratio(peer, total)


def _runs(work: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Ours and the peer in turn, so that both see the same machine."""
    ours, peers = [], []
    with _server(work) as url:
        for _ in range(TIMES):
            ours.append(_child("device", str(work), url))
            peers.append(_peer(work))
    return ours, peers


def _peer(work: Path) -> dict[str, float]:
    copy = work / "copy"
    copy.unlink(missing_ok=True)
    dd = ["dd", f"if={work / 'image'}", f"of={copy}", "bs=1M", "conv=fsync"]
    return {"dd_s": _seconds(dd), "sha256sum_s": _seconds(["sha256sum", str(copy)])}


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


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


def make_container(work: Path) -> None:
    """Pack `image` into `x.full` and write what metadata would say to `order.json`."""
    from sealift.core.payload import pack_full
    from sealift.core.types import Artifact, Instruction

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
    artifact = Artifact(
        name="bench/rootfs-1.img",
        length=packed.image_length,
        sha256=packed.image_sha256,
        sha512=None,
        segment_size=packed.segment_size,
        segment_root=packed.segment_root,
        hardware_ids=("bench",),
        release_counter=1,
        version="1",
    )
    container = packed.container("x.full")
    order = Instruction("d", "bench", artifact, container, None, None, 1, bytes(32))
    (work / "order.json").write_text(json.dumps(order.to_json()))


# ── processes of their own ───────────────────────────────────────────────────────────
def _child(function: str, *arguments: str) -> dict[str, float]:
    call = (
        f"import sys; from benchmarks.install import {function} as f; f(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", call, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def device(work: str, url: str) -> None:
    """What the agent does, timed; prints one JSON object."""
    from sealift.agent.payload import PayloadFill
    from sealift.agent.slot import PathSlots, WorkFiles
    from sealift.agent.transport import HttpsTransport, TlsFiles
    from sealift.core.types import Instruction, Slot

    place = Path(work)
    order = Instruction.from_json(json.loads((place / "order.json").read_bytes()))
    path = place / "slot"
    _make_old(place / "image", path)
    files = TlsFiles(
        *(str(place / name) for name in ("ca.pem", "device.pem", "device.key"))
    )
    slot = PathSlots({Slot.B: str(path)}).open(Slot.B, writable=True)
    cpu = cpu_s(os.getpid())
    began = time.perf_counter()
    way = HttpsTransport(url, files, MonotonicClock(), floor=lambda: 0)
    PayloadFill(order, way, WorkFiles(work))(slot, None)
    filled = time.perf_counter()
    slot.drop_cache()
    digest = sha256()
    for offset in range(0, order.artifact.length, PIECE):
        digest.update(slot.read(offset, min(PIECE, order.artifact.length - offset)))
    ended = time.perf_counter()
    if digest.digest() != order.artifact.sha256:
        raise SystemExit("the slot does not hold the image")
    found = {
        "fill_s": filled - began,
        "reread_s": ended - filled,
        "device_cpu_s": cpu_s(os.getpid()) - cpu,
        "device_peak_rss_mib": peak_rss_mib(os.getpid()),
        "container_mb": order.full.length / 1e6,
    }
    print(json.dumps(found))


def _make_old(image: Path, slot: Path) -> None:
    """A slot that holds something else everywhere: an older image, as slots do."""
    with image.open("rb") as new, slot.open("wb") as old:
        while piece := new.read(MIB):
            old.write(bytes(255 - byte for byte in piece[:16]) + piece[16:])
        old.flush()
        os.fsync(old.fileno())


class MonotonicClock:
    """The clock of this machine, as far as a transfer needs one."""

    def now(self) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def boot_id(self) -> str:
        """Always the same."""
        return "bench"


@contextmanager
def _server(work: Path) -> Iterator[str]:
    call = "import sys; from benchmarks.install import serve as f; f(*sys.argv[1:])"
    command = [sys.executable, "-c", call, str(work)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise SystemExit("no pipe to the server")
        yield process.stdout.readline().strip()
        process.stdin.close()  # the server ends with its input


def serve(work: str) -> None:
    """Serve the container until standard input ends; prints its address first."""
    from tests.tls_server import Files, Pki, TlsServer

    place = Path(work)
    order = json.loads((place / "order.json").read_bytes())
    target = f"/director/targets/{order['full']['sha256']}.x.full"
    with TlsServer(Pki(place), Files({target: place / "x.full"})) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def _decode_s(work: Path) -> float:
    return _child("decode", str(work))["decode_s"]


def decode(work: str) -> None:
    """Decode every frame in one thread and write nothing; prints the seconds."""
    from sealift.core.container import open_head
    from sealift.core.payload import unpack
    from sealift.core.types import Instruction

    place = Path(work)
    order = Instruction.from_json(json.loads((place / "order.json").read_bytes()))
    raw = (place / "x.full").read_bytes()
    head = open_head(lambda at, n: raw[at : at + n], order.artifact, order.full)
    frames = [
        (
            raw[found.frame_offset : found.frame_offset + found.frame_length],
            found.length,
        )
        for found in head.segments()
        if found.framed
    ]
    began = time.perf_counter()
    for frame, length in frames:
        unpack(frame, length)
    print(json.dumps({"decode_s": time.perf_counter() - began}))


if __name__ == "__main__":
    run(measure)
