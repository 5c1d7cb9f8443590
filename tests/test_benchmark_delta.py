"""The delta benchmark measures what it says, and says what it could not measure."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import delta
from benchmarks._delta_bench import Sealift
from benchmarks._delta_corpus import Corpus, Pair, sparse_pair
from benchmarks._delta_firmware import make_firmware
from benchmarks._delta_peers import Desk, Program, Run
from benchmarks._delta_ranges import serve_ranges
from benchmarks._delta_table import as_tables
from benchmarks._delta_tools import Tools
from benchmarks._delta_trial import Figures, Limits, Trials
from benchmarks.common import Cost, Result, cost
from sealift.core.errors import MissingToolError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A small program in two revisions."""
    found = Pair("small", tmp_path / "old", tmp_path / "new")
    found.old.write_bytes(make_firmware(1, functions=120))
    found.new.write_bytes(make_firmware(2, functions=120))
    return found


def _trials(work: Path, *, seconds: int = 20, reuse: bool = False) -> Trials:
    tools = Tools(work / "tools")
    return Trials(work, tools, Limits(cpu_s=seconds), lambda _: None, reuse=reuse)


@dataclass
class Script:
    """A peer made of shell: `create` and `apply` work on $1 old, $2 new, $3, $4."""

    creates: str
    applies: str
    name: str = "script"
    largest: int = 1 << 30
    runs: int = 0

    def version(self, tools: Tools) -> str:
        del tools
        return "1"

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        del tools
        self.runs += 1
        return run(self._command(desk, self.creates))

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        del tools
        return run(self._command(desk, self.applies))

    def wire(self, desk: Desk) -> int:
        return desk.patch.stat().st_size

    def _command(self, desk: Desk, line: str) -> Sequence[str]:
        return [
            "sh",
            "-c",
            line,
            "sh",
            *desk.fill(("{old}", "{new}", "{patch}", "{out}")),
        ]


COPY = Script('cp "$2" "$3"', 'cp "$3" "$4"')


# ── images ───────────────────────────────────────────────────────────────────────────
def test_revisions_differ_all_over_and_come_out_the_same_each_time() -> None:
    """A generated program is reproducible; a small edit moves and changes much of it."""
    old, new = make_firmware(1, functions=200), make_firmware(2, functions=200)
    assert make_firmware(2, functions=200) == new
    different = sum(a != b for a, b in zip(old, new, strict=False))
    assert len(old) != len(new)
    assert different > len(old) // 10


def test_a_pair_is_made_once(tmp_path: Path) -> None:
    """The second run takes the images of the first."""
    corpus = Corpus(tmp_path)
    first = corpus.pair("generated")
    first.new.write_bytes(b"kept")
    assert corpus.pair("generated").new.read_bytes() == b"kept"
    assert first.digests() == corpus.pair("generated").digests()


def test_a_sparse_pair_takes_little_room(tmp_path: Path) -> None:
    """Sparse images are as long as they say and hold next to nothing."""
    found = sparse_pair(tmp_path, 1)
    for path in (found.old, found.new):
        assert path.stat().st_size == 1 << 30
        assert path.stat().st_blocks * 512 < 32 << 20
    assert found.digests()[0] != found.digests()[1]


# ── peers ────────────────────────────────────────────────────────────────────────────
def test_a_peer_counts_when_its_result_is_the_new_image(
    tmp_path: Path, pair: Pair
) -> None:
    """Size, time and memory are told of a peer that gives back the new image."""
    found = _trials(tmp_path / "work").run(COPY, "1", pair)
    assert found["bytes"] == pair.new.stat().st_size
    assert {"create_cpu_s", "apply_cpu_s", "apply_peak_rss_mib"} < found.keys()


@pytest.mark.parametrize(
    ("creates", "applies", "reason"),
    [
        ('cp "$1" "$3"', 'cp "$3" "$4"', "another image"),
        ('head -c 100 "$2" >"$3"', 'cp "$3" "$4"', "another image"),
        ("echo no such thing >&2; exit 3", "true", "status 3: no such thing"),
        ("while :; do :; done", "true", "not in 1 CPU s"),
    ],
)
def test_a_peer_that_does_not_do_it_is_told_with_the_reason(
    tmp_path: Path, pair: Pair, creates: str, applies: str, reason: str
) -> None:
    """A wrong result, a failure or a time-out leaves no size, only why."""
    found = _trials(tmp_path / "work", seconds=1).run(
        Script(creates, applies), "1", pair
    )
    assert found.keys() == {"not"}
    assert reason in str(found["not"])


def test_a_pair_too_large_for_a_peer_is_told(tmp_path: Path, pair: Pair) -> None:
    """A peer that is not tried on an image of this size says so."""
    small = Script("false", "false", largest=100)
    assert "tried up to" in str(_trials(tmp_path).run(small, "1", pair)["not"])


def test_earlier_figures_are_taken_only_when_asked(tmp_path: Path, pair: Pair) -> None:
    """Without `reuse` a peer runs each time; with it once for the same images."""
    peer = Script(COPY.creates, COPY.applies)
    for reuse, runs in ((False, 1), (False, 2), (True, 2)):
        _trials(tmp_path / "work", reuse=reuse).run(peer, "1", pair)
        assert peer.runs == runs
    pair.new.write_bytes(b"another image")
    _trials(tmp_path / "work", reuse=True).run(peer, "1", pair)
    assert peer.runs == 3


def test_a_missing_peer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that neither this machine nor Debian has is in the result, as missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    peer = Program("nothing", "no-such-package", "no-such-program", "", "")
    found = _trials(tmp_path / "work").versions([peer])
    assert "apt" in str(found["nothing"]["missing"])


def test_a_program_of_this_machine_is_taken_first(tmp_path: Path) -> None:
    """What PATH has is used, without a download."""
    tools = Tools(tmp_path / "tools")
    command = tools.command(["sh", "-c", "true"], "no-such-package")
    assert command == [shutil.which("sh"), "-c", "true"]
    assert not (tmp_path / "tools").exists()


def test_limits_of_memory_hold(tmp_path: Path) -> None:
    """A process that wants more memory than it may have fails."""
    code = [sys.executable, "-c", "bytearray(1 << 30)"]
    limits = Limits(cpu_s=20, memory_mib=512)
    with pytest.raises(subprocess.CalledProcessError):
        limits.run(code)
    assert cost(code, cwd=tmp_path).status == 0


def test_several_ranges_come_in_one_answer(tmp_path: Path) -> None:
    """The server for zchunk answers one range, several, and none; and counts."""
    file = tmp_path / "file"
    file.write_bytes(bytes(range(200)))
    with serve_ranges(file) as (url, sent):
        for asked, expected in (
            ("bytes=10-19", bytes(range(10, 20))),
            ("bytes=0-4,100-101", b"Content-Range: bytes 100-101/200\r\n\r\nde"),
            ("", bytes(range(200))),
        ):
            request = urllib.request.Request(url, headers={"Range": asked})
            with urllib.request.urlopen(request) as answer:
                body = answer.read()
            assert expected in body
            assert sent[-1] == len(body)


# ── Sealift's side, and the whole ────────────────────────────────────────────────────
def test_the_agent_installs_what_was_made(tmp_path: Path, pair: Pair) -> None:
    """Every way is installed by a fresh device; the delta is the smallest on the wire."""
    home = tmp_path / "home"
    home.mkdir()
    found = Sealift(pair, home, "balanced").measure()
    received = {name: value for name, value in found.items() if "received" in name}
    assert received == {
        f"{way}_received_bytes": found[f"{way}_bytes"]
        for way in ("delta", "full", "delta.sealed", "full.sealed")
    }
    assert _number(found, "delta_bytes") * 2 < _number(found, "full_bytes")
    assert 10 < _number(found, "device_peak_rss_mib") < 64


def test_a_device_with_another_base_is_found_out(tmp_path: Path, pair: Pair) -> None:
    """A delta that was not used is no figure of a delta."""
    home = tmp_path / "home"
    home.mkdir()
    sealift = Sealift(pair, home, "quick")
    sealift.measure()
    pair.old.write_bytes(pair.old.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="took full"):
        sealift.install("delta")


def test_ratios_are_to_the_smallest_peer() -> None:
    """Ours over the least of those that have a size; a peer without one does not count."""
    peers: dict[str, Figures] = {
        "large": {"bytes": 200, "create_cpu_s": 1.0},
        "small": {"bytes": 100},
        "late": {"not": "not in 300 CPU s"},
    }
    found = delta.ratios({"delta_bytes": 104, "full_bytes": 1040}, peers)
    assert found["best_peer"] == "small"
    assert found["vs_best_peer"] == 1.04
    assert found["delta_vs_full"] == 0.1
    assert "vs_best_peer" not in delta.ratios({"delta_bytes": 1, "full_bytes": 2}, {})


def test_the_command_prints_what_others_read(tmp_path: Path, pair: Pair) -> None:
    """`--pair` gives the figures by their public names, as one JSON object."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.delta", "--json", "--sparse", "0"),
            *("--pair", pair.old, pair.new, "--peers", "lzma2,full xz"),
            *("--work", tmp_path / "work"),
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["benchmark"] == "delta"
    assert found["ratios"]["pair-1.vs_best_peer"] == found["ratios"]["vs_best_peer"]
    assert found["figures"]["device_peak_rss_mib"] > 10
    assert found["figures"]["create_cpu_s"] > 0
    assert len(found["figures"]["pair-1.new_sha256"]) == 64
    assert found["peers"].keys() == {"hdiffpatch lzma2", "full xz -9"}
    assert found["peers"]["full xz -9"]["version"]
    assert found["peers"]["full xz -9"]["pair-1.bytes"] > 0
    assert str(tmp_path) not in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "nothing"), b"no pair nothing"),
        (("--pair", "no-old", "no-new"), b"no such image: no-old"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: tuple[str, ...], said: bytes) -> None:
    """What does not exist is said before anything is measured, without a traceback."""
    command = [sys.executable, "-m", "benchmarks.delta", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_tables_name_every_peer() -> None:
    """People see who was measured, who was not, and why."""
    result = Result("delta")
    result.figures |= {"a.image_bytes": 9, "a.delta_bytes": 3, "a.full_bytes": 6}
    result.peers |= {
        "one": {"version": "1", "a.bytes": 4},
        "two": {"version": "2", "a.not": "not in 300 CPU s"},
        "three": {"missing": "no apt"},
    }
    told = as_tables(result)
    for text in ("== a", "one: 1", "not in 300 CPU s", "three: missing: no apt"):
        assert text in told


def test_missing_python_packages_are_named() -> None:
    """A Python peer that is not installed says what to do."""
    from benchmarks._delta_tools import module_version

    with pytest.raises(MissingToolError, match="no-such-module"):
        module_version("no-such-module")


def _number(found: Figures, name: str) -> float:
    value = found[name]
    assert isinstance(value, int | float)
    return value
