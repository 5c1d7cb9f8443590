"""How small an update gets, and what it costs, beside everything else there is.

    python -m benchmarks.delta [--json] [--only kernel,rootfs] [--pair OLD NEW]...
                               [--peers xdelta3,bsdiff] [--quality best] [--work DIR]

For each pair of images: Sealift's full container and delta are made, sealed, and
installed by the agent's own code in a fresh process (`_delta_device`); each peer makes
what it sends, applies it to the old image, and the result is compared with the new one
before its size counts. Every step is a process of its own: CPU is its user and system
seconds, RSS the peak of its largest process. `bytes` are those on the wire, without
headers of HTTP. Peers come from PATH or from Debian, without root, and from the locked
Python packages; one that is missing, fails or needs more than `--seconds` of CPU is
named with the reason.

`vs_best_peer` is Sealift's delta over the smallest of all peers, full xz included.
`create_cpu_vs_hdiffpatch` compares with `hdiffpatch lzma2`, which runs right before.
`device_peak_rss_mib` is the most any device needed, sealed containers included, and on
a sparse image of several GiB as well, where there are no peers; with `_plain`, sealed
ones are left out. Figures with a name and a dot before them belong to that pair.

Images and packages are kept below `--work`, and fetched only once. `--reuse` takes a
peer's figures of an earlier run where nothing changed: for tuning, not for publishing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks._delta_bench import Sealift
from benchmarks._delta_corpus import DEFAULT, PAIRS, Corpus, Pair, sparse_pair
from benchmarks._delta_peers import PEERS
from benchmarks._delta_table import as_tables
from benchmarks._delta_tools import Tools
from benchmarks._delta_trial import Figures, Limits, Trials
from benchmarks.common import MIB, Result, Value, ratio
from sealift.core.errors import SealiftError

HDIFFPATCH, XZ = "hdiffpatch lzma2", "full xz -9"
LARGE = 16 * MIB
"""Bytes from which CPU is compared overall: below, the start of Python is measured."""


class Benchmark:
    """One run over the pairs that were asked for."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._work: Path = asked.work
        tools = Tools(self._work / "tools", say)
        limits = Limits(cpu_s=asked.seconds)
        self._trials = Trials(self._work, tools, limits, say, asked.reuse)
        self._peers = [peer for peer in PEERS if _chosen(peer.name, asked.peers)]
        self.result = Result("delta")

    def measure(self) -> Result:
        """All of it."""
        self.result.peers.update(self._trials.versions(self._peers))
        for pair in self._pairs():
            self._compare(pair)
        if self._asked.sparse:
            with tempfile.TemporaryDirectory(dir=self._work) as home:
                self._sealift(sparse_pair(Path(home), self._asked.sparse))
        self._overall()
        return self.result

    def _pairs(self) -> Iterator[Pair]:
        given = [(Path(old), Path(new)) for old, new in self._asked.pair]
        for number, (old, new) in enumerate(given, 1):
            yield Pair(f"pair-{number}", old.absolute(), new.absolute())
        corpus = Corpus(self._work, say)
        names = self._asked.only or ([] if given else DEFAULT)
        for name in names:
            try:
                yield corpus.pair(name)
            except SealiftError as error:
                self.result.figures[f"{name}.missing"] = error.message

    def _compare(self, pair: Pair) -> None:
        """Peers, then Sealift, then both against each other."""
        found: dict[str, Figures] = {}
        for peer in self._peers:
            version = self.result.peers[peer.name].get("version")
            if version is not None:
                found[peer.name] = self._trials.run(peer, version, pair)
                self._note(self.result.peers[peer.name], pair, found[peer.name])
        ours = self._sealift(pair)
        self._note(self.result.ratios, pair, ratios(ours, found))

    def _sealift(self, pair: Pair) -> Figures:
        say(f"{pair.name}: Sealift")
        old, new = pair.digests()
        with tempfile.TemporaryDirectory(dir=self._work) as home:
            ours = Sealift(pair, Path(home), self._asked.quality).measure()
        told = {"old_sha256": old, "new_sha256": new, **ours}
        self._note(self.result.figures, pair, told)
        return ours

    def _note(self, into: dict[str, Value], pair: Pair, found: Figures) -> None:
        into.update({f"{pair.name}.{name}": value for name, value in found.items()})

    def _overall(self) -> None:
        """The worst of each, over all pairs."""
        figures, told = self.result.figures, self.result.ratios
        figures["quality"] = self._asked.quality
        figures["create_cpu_s"] = round(sum(_all(figures, ".create_cpu_s")), 2)
        for name in ("device_peak_rss_mib", "device_peak_rss_mib_plain"):
            figures[name] = max(_all(figures, f".{name}"), default=None)
        told["vs_best_peer"] = max(_all(told, ".vs_best_peer"), default=None)
        large = {
            name: value
            for name, value in told.items()
            if _number(figures, f"{name.partition('.')[0]}.image_bytes") >= LARGE
        }
        for name in ("create_cpu_vs_hdiffpatch", "apply_cpu_vs_xz"):
            told[name] = max(_all(large, f".{name}"), default=None)


def ratios(ours: Figures, peers: dict[str, Figures]) -> Figures:
    """What comparing one pair comes to."""
    sizes = {name: _number(found, "bytes") for name, found in peers.items()}
    measured = {name: size for name, size in sizes.items() if size}
    delta, full = _number(ours, "delta_bytes"), _number(ours, "full_bytes")
    found: Figures = {"delta_vs_full": ratio(delta, full)}
    if measured:
        best = min(measured, key=measured.__getitem__)
        found |= {"best_peer": best, "vs_best_peer": ratio(delta, measured[best])}
    for name, step, peer in (
        ("create_cpu_vs_hdiffpatch", "create_cpu_s", HDIFFPATCH),
        ("apply_cpu_vs_xz", "apply_cpu_s", XZ),
        ("apply_full_cpu_vs_xz", "apply_full_cpu_s", XZ),
    ):
        theirs = _number(peers.get(peer, {}), step.replace("_full", ""))
        if theirs:
            found[name] = ratio(_number(ours, step), theirs, 2)
    return found


def _number(found: Figures, name: str) -> float:
    value = found.get(name)
    return value if isinstance(value, int | float) else 0


def _all(found: Figures, ending: str) -> list[float]:
    return [_number(found, name) for name in found if name.endswith(ending)]


def _chosen(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(word in name for word in wanted)


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(f"delta: {text}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.delta")
    found.add_argument("--json", action="store_true", help="print one JSON object")
    found.add_argument(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar=("OLD", "NEW"),
        help="measure these images; may be given several times",
    )
    found.add_argument("--only", type=_words, default=[], help=f"of {','.join(PAIRS)}")
    found.add_argument(
        "--peers", type=_words, default=[], help="only those whose names hold a word"
    )
    found.add_argument("--quality", default="balanced", help="quick, balanced, best")
    found.add_argument(
        "--seconds", type=int, default=300, help="CPU seconds for one step of a peer"
    )
    found.add_argument(
        "--sparse", type=int, default=4, help="GiB of the sparse image; 0 for none"
    )
    found.add_argument("--reuse", action="store_true", help="peers' earlier figures")
    found.add_argument("--work", type=Path, default=_cache(), help="where files stay")
    return found


def _asked() -> argparse.Namespace:
    """The command line, if it names what there is."""
    found = parser()
    asked = found.parse_args()
    for name in asked.only:
        if name not in PAIRS:
            found.error(f"no pair {name}; there are {', '.join(PAIRS)}")
    for path in (path for pair in asked.pair for path in pair):
        if not Path(path).is_file():
            found.error(f"no such image: {path}")
    return asked


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sealift" / "benchmarks-delta"


def main() -> None:
    """Measure and print."""
    asked = _asked()
    asked.work.mkdir(parents=True, exist_ok=True)
    try:
        result = Benchmark(asked).measure()
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode("utf-8", "replace").strip()
        sys.exit(f"delta: a step of Sealift failed: {said.rpartition(chr(10))[2]}")
    print(result.as_json() if asked.json else as_tables(result), flush=True)


if __name__ == "__main__":
    main()
