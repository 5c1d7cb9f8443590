"""How fast an image reaches a slot: download, verify, write, read back.

The image is 256 MiB: three quarters real files (the Python installation and shared
libraries of this machine, in sorted order), one quarter zeros, as a root file system
with free space has. It is packed with our encoder and served over TLS on loopback by a
small Python file server in a process of its own (`server_cpu_s` is what that costs).
The device is a fresh process that runs what the agent runs: `AbInstaller.stage` with a
`PayloadFill` over `HttpsTransport`, into a slot file that holds another image. It ends
when every byte is flushed and was read back from the medium and hashed.

The peer in the same run is `dd conv=fsync` of the plain image plus `sha256sum` of the
copy: writing and verifying alone, without network, compression or comparison with what
was there; its copy is hashed out of the page cache. Both are run five times in turn,
and medians are compared.

What bounds the figure: `decode_cpu_s` is the CPU time of liblzma alone for this image,
`cpu_s` that of the whole device. Spread over all cores and with nothing else to do,
decoding alone would give `bound_vs_dd_sha256`. `incompressible_mb_per_s` (64 MiB of
noise: stored, not decoded) and `zeros_mb_per_s` (256 MiB) are the same install without
LZMA, and say what the rest of the path can do.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks._install_parts import (
    IMAGE,
    child,
    make_container,
    make_image,
    make_noise,
    make_old,
    make_zeros,
    server,
)
from benchmarks.common import MIB, Result, cpu_s, ratio, run

NOISE = 64 * MIB
TIMES = 5
Runs = list[dict[str, float]]


@dataclass(frozen=True)
class Ground:
    """Where it happens: a directory per image, and the server."""

    root: Path
    url: str
    server: int

    def install(self, name: str) -> dict[str, float]:
        """Install one image; what the device measured, and what serving cost."""
        place, before = self.root / name, cpu_s(self.server)
        make_old(place / "image", place / "slot")
        found = child("device", str(place), str(self.root), self.url)
        return {**found, "server_cpu_s": cpu_s(self.server) - before}

    def rate(self, name: str) -> float:
        """The median of installs of one image, in MB/s."""
        seconds = median(self.install(name)["total_s"] for _ in range(TIMES))
        return _mb(self.root / name / "image") / seconds

    def peer(self) -> dict[str, float]:
        """Write the plain image and hash the copy."""
        image, copy = self.root / "files" / "image", self.root / "copy"
        copy.unlink(missing_ok=True)
        dd = ["dd", f"if={image}", f"of={copy}", "bs=1M", "conv=fsync"]
        found = {"dd_s": _seconds(dd), "sha256sum_s": _seconds(["sha256sum", copy])}
        return {**found, "total_s": sum(found.values())}


def measure() -> Result:
    """Measure download + verify + write of one image, against dd and sha256sum."""
    result = Result("install")
    with tempfile.TemporaryDirectory(prefix="sealift-install-") as name:
        root = Path(name)
        pack_s = _prepare(root / "files", make_image, IMAGE)
        _prepare(root / "noise", make_noise, NOISE)
        _prepare(root / "zeros", make_zeros, IMAGE)
        places = [root / name for name in ("files", "noise", "zeros")]
        with server(root, places) as (url, process):
            ground = Ground(root, url, process)
            turns = [(ground.install("files"), ground.peer()) for _ in range(TIMES)]
            _compare(result, [ours for ours, _ in turns], [peer for _, peer in turns])
            result.figures["incompressible_mb_per_s"] = round(ground.rate("noise"), 1)
            result.figures["zeros_mb_per_s"] = round(ground.rate("zeros"), 1)
        decode_s = median(_decode_cpu_s(root) for _ in range(3))
        _explain(result, root, pack_s, decode_s)
    return result


def _prepare(place: Path, make: Callable[..., None], length: int) -> float:
    """One image and its container; the seconds that packing took."""
    place.mkdir()
    make(place / "image", length=length)
    began = time.perf_counter()
    make_container(place)
    return time.perf_counter() - began


def _compare(result: Result, ours: Runs, peers: Runs) -> None:
    """Medians, field by field, and the ratio."""
    mb = IMAGE / 1e6
    result.figures["mb_per_s"] = round(mb / _median(ours, "total_s"), 1)
    for name in ours[0]:
        result.figures[name] = round(_median(ours, name), 3)
    found = {name: round(_median(peers, name), 3) for name in peers[0]}
    peer_rate = round(mb / _median(peers, "total_s"), 1)
    result.peers["dd+sha256sum"] = {"mb_per_s": peer_rate, **found}
    result.ratios["vs_dd_sha256"] = ratio(
        _median(peers, "total_s"), _median(ours, "total_s")
    )


def _explain(result: Result, root: Path, pack_s: float, decode_s: float) -> None:
    """What was installed, and what its decoding allows at best on this machine."""
    figures, mb, cores = result.figures, IMAGE / 1e6, os.cpu_count() or 1
    figures["image_mb"] = round(mb, 1)
    figures["container_mb"] = round(_mb(root / "files" / "x.full"), 1)
    figures["pack_mb_per_s"] = round(mb / pack_s, 1)
    figures["decode_cpu_s"] = round(decode_s, 3)
    figures["decode_1_core_mb_per_s"] = round(mb / decode_s, 1)
    figures["image"] = "3/4 real files, 1/4 zeros"
    peer = result.peers["dd+sha256sum"]["total_s"]
    if isinstance(peer, float):
        result.ratios["bound_vs_dd_sha256"] = ratio(peer, decode_s / cores)


def _decode_cpu_s(root: Path) -> float:
    return child("decode", str(root / "files"))["decode_cpu_s"]


def _median(runs: Runs, name: str) -> float:
    return median(one[name] for one in runs)


def _mb(path: Path) -> float:
    return path.stat().st_size / 1e6


def _seconds(command: Sequence[str | Path]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    run(measure)
