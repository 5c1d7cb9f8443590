"""`sealift payload` as people type it: make, apply, inspect, check-image."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sealift.cli import drawing, views
from sealift.cli.main import main
from sealift.cli.payload import parse_size
from sealift.client.answers import Delta
from sealift.core.errors import InvalidConfigError
from sealift.payload.look.anatomy import Map, Tone
from sealift.payload.look.findings import Finding, Severity
from tests.unit.payload.filesystems import STEADY, build, compress, grow, settle

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two builds of a root file system, the delta between them, and the full one."""
    home = tmp_path_factory.mktemp("bench")
    tree = grow(home / "tree")
    settle(tree)
    build(tree, home / "old.img", *STEADY)
    compress(tree, "usr/app.gz", length=300_000)
    settle(tree)
    build(tree, home / "new.img", *STEADY)
    shutil.rmtree(tree)
    words = ["payload", "make", str(home / "new.img"), "--quality", "quick"]
    delta = ["--base", str(home / "old.img"), "--out", str(home / "new.delta")]
    assert main([*words, *delta, "--json"]) == 0
    assert main([*words, "--out", str(home / "new.full"), "--json"]) == 0
    return home


@pytest.fixture
def bench(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    home = tmp_path / "bench"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def run(bench: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json; its value, or its error if a status is expected."""

    def call(*words: str, status: int = 0) -> Any:
        capsys.readouterr()
        assert main(["payload", *words, "--json"]) == status
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return json.loads(printed.out)

    return call


@pytest.fixture
def say(bench: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command for a human; what it prints."""

    def call(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["payload", *words]) == status
        printed = capsys.readouterr()
        text = printed.out + printed.err
        assert "Traceback" not in text
        assert "\x1b" not in text
        return text

    return call


APPLY = ("apply", "new.delta", "--base", "old.img", "--out", "again.img")


def digest(path: str) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()


# ── make ─────────────────────────────────────────────────────────────────────────────
def test_a_delta_is_made_with_its_figures(run: Run) -> None:
    """Sizes, ratios, kinds of segments, time and memory; and the facts beside it."""
    found = run(
        "make", "new.img", "--base", "old.img", "--out", "x.delta",
        "--quality", "quick",
    )  # fmt: skip
    length = Path("x.delta").stat().st_size
    assert (found["kind"], found["container"]["length"]) == ("delta", length)
    assert found["container"]["sha256"] == digest("x.delta")
    assert found["artifact"]["sha256"] == digest("new.img")
    assert found["container"]["base_sha256"] == digest("old.img")
    assert length < found["full_length"]
    assert sum(one["count"] for one in found["segments"].values()) == 6
    assert found["cpu_seconds"] > 0
    assert 0 < found["memory_bytes"] < 1 << 32
    facts = json.loads(Path("x.delta.json").read_text())
    assert facts["container"] == found["container"]


def test_a_full_container_needs_no_base(run: Run) -> None:
    """The same command without --base."""
    found = run("make", "new.img", "--out", "x.full", "--quality", "quick")
    assert (found["kind"], found["full_length"]) == ("full", None)
    assert found["segments"]["delta"]["count"] == 0
    assert found["container"]["length"] == Path("x.full").stat().st_size


def test_a_dry_run_leaves_nothing(run: Run, bench: Path) -> None:
    """It makes the delta, tells all about it, and throws it away."""
    before = sorted(bench.iterdir())
    words = ("make", "new.img", "--base", "old.img", "--out", "x.delta", "--dry-run")
    assert run(*words, "--no-compare")["written"] is False
    assert sorted(bench.iterdir()) == before


# words → status, code
REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    (("make", "new.img", "--out", "new.full"), 2, "config.invalid"),
    (("make", "absent.img", "--out", "x"), 2, "config.invalid"),
    (("make", "/dev/null", "--out", "x"), 2, "config.invalid"),
    (("make", "new.img", "--out", "no/where"), 2, "config.invalid"),
    (("make", "new.img", "--out", "x", "--quality", "good"), 2, "config.invalid"),
    (("make", "new.img", "--out", "x", "--memory", "lots"), 2, "config.invalid"),
    (
        ("make", "new.img", "--base", "old.img", "--out", "x", "--memory", "1MiB"),
        9,
        "delta.memory",
    ),
    (("apply", "new.delta", "--out", "x.img"), 2, "config.invalid"),
    (("apply", "new.delta", "--base", "new.img", "--out", "x"), 3, "payload.digest"),
    (("apply", "old.img", "--out", "x.img"), 3, "payload.container"),
    ((*APPLY[:-1], "old.img"), 2, "config.invalid"),
    (("inspect", "old.img"), 3, "payload.container"),
    (("inspect", "absent"), 2, "config.invalid"),
    (("inspect", "new.delta", "--facts", "new.full.json"), 3, ""),
    (("inspect", "new.delta", "--facts", "old.img"), 3, "format.limit"),
    (("check-image", "absent"), 2, "config.invalid"),
    (("check-image", "old.img", "--slot-size", "1 parsec"), 2, "config.invalid"),
]


@pytest.mark.parametrize(
    ("words", "status", "code"), REFUSED, ids=lambda v: str(v)[:50]
)
def test_what_cannot_be_is_told(
    words: tuple[str, ...], status: int, code: str, run: Run, bench: Path
) -> None:
    """With a code and a status, and nothing left behind."""
    before = sorted(path.name for path in bench.iterdir())
    found = run(*words, status=status)["error"]
    assert found["code"].startswith(code)
    assert found["message"]
    assert sorted(path.name for path in bench.iterdir()) == before


# ── apply ────────────────────────────────────────────────────────────────────────────
def test_an_image_is_made_again(run: Run) -> None:
    """By the decoder of devices, compared with the facts beside the container."""
    found = run(*APPLY)
    assert digest("again.img") == digest("new.img") == found["sha256"]
    assert (found["own_word"], found["base_modified"]) == (False, False)
    assert not Path("again.img.part").exists()


def test_a_stopped_run_goes_on(run: Run) -> None:
    """What lies in the draft and is right is kept."""
    Path("again.img.part").write_bytes(Path("new.img").read_bytes()[: 3 << 20])
    found = run(*APPLY)
    assert digest("again.img") == digest("new.img")
    assert found["segments_kept"] >= 3


def spoil(path: str) -> None:
    """Write a little in every segment, as a mount does."""
    with Path(path).open("r+b") as file:
        for at in range(5000, 6 << 20, 1 << 20):
            file.seek(at)
            file.write(b"touched")


def test_a_modified_base_is_healed(run: Run) -> None:
    """Refused without the full container, healed with it."""
    spoil("old.img")
    refused = run(*APPLY, status=3)["error"]
    assert (refused["code"], "--full" in refused["hint"]) == ("payload.digest", True)
    found = run(*APPLY, "--full", "new.full")
    assert digest("again.img") == digest("new.img")
    assert found["base_modified"]
    assert found["segments_repaired"] > 0
    assert found["repair_bytes"] > 0


def test_a_dry_run_of_apply_writes_nothing(run: Run, bench: Path) -> None:
    """It decodes and verifies all the same."""
    before = sorted(bench.iterdir())
    assert run(*APPLY, "--dry-run")["written"] is False
    assert sorted(bench.iterdir()) == before
    spoil("old.img")
    run(*APPLY, "--dry-run", status=3)


def test_without_facts_it_says_whose_word_it_took(
    say: Callable[..., str], run: Run
) -> None:
    """A warning for humans, a member for programs."""
    Path("new.delta.json").unlink()
    assert "by its own word" in say("inspect", "new.delta")
    assert run("inspect", "new.delta")["own_word"] is True


# ── inspect ──────────────────────────────────────────────────────────────────────────
def test_inspect_tells_what_make_told(run: Run) -> None:
    """The same facts; kinds, ops, streams and a map that adds up."""
    found = run("inspect", "new.delta")
    assert (
        found["container"]
        == json.loads(Path("new.delta.json").read_text())["container"]
    )
    cells = found["map"]["cells"]
    assert len(cells) * found["map"]["cell_bytes"] == 6 << 20
    assert set(cells) <= set(found["map"]["legend"])
    assert cells.count("=") > cells.count("#") > 0
    frames = sum(one["frame_bytes"] for one in found["segments"].values())
    container = found["container"]
    assert frames == container["length"] - container["head_length"]


def test_the_map_is_drawn_in_letters(say: Callable[..., str]) -> None:
    """With places at the left and a legend below; no colour without a terminal."""
    text = say("inspect", "new.delta")
    assert "map: 1 letter = 8.0 KiB" in text
    rows = [
        line.split()[-1]
        for line in text.splitlines()
        if "MiB =" in line or "B =" in line
    ]
    assert rows
    for word in ("= copied", "~ changed", "# new", ". zero"):
        assert word in text


def test_a_sealed_container_shows_its_size_only(
    say: Callable[..., str], run: Run
) -> None:
    """There is nothing else to see without the key."""
    Path("x.sealed").write_bytes(os.urandom(40_000))
    assert run("inspect", "x.sealed") == {
        "sealed": True,
        "length": 40_000,
        "plain_length": 39_896,
    }
    assert "without its content key" in say("inspect", "x.sealed")


def test_facts_of_a_release_serve(run: Run) -> None:
    """release.json beside the container, the delta by its name."""
    full = json.loads(Path("new.full.json").read_text())
    delta = json.loads(Path("new.delta.json").read_text())
    release = {**full, "deltas": [delta["container"]], "sequence": 1}
    Path("release.json").write_text(json.dumps(release))
    for name in ("new.full", "new.delta"):
        Path(name + ".json").unlink()
        found = run("inspect", name)
        assert (found["own_word"], found["container"]["name"]) == (False, name)


# ── check-image ──────────────────────────────────────────────────────────────────────
def test_check_image_compares_two_builds(run: Run) -> None:
    """The trial names the file that carries the bytes."""
    found = run("check-image", "new.img", "--base", "old.img")
    assert found["volumes"][0]["kind"] == "ext4"
    trial = found["trial"]
    assert trial["delta_bytes"] < trial["full_bytes"]
    assert trial["carriers"][0]["name"] == "/usr/app.gz"
    assert [one["code"] for one in found["findings"]] == [
        "delta.poor",
        "compressed.files",
    ]


def test_check_image_reads_well(say: Callable[..., str]) -> None:
    """Severity, cause, cost, cure and place, within eighty columns."""
    text = say("check-image", "new.img", "--slot-size", "5MiB")
    assert "error: slot.too-small" in text
    assert "  cause  the image has 6.0 MiB, the slot 5.0 MiB" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "1 error" in text


def test_a_build_may_insist(run: Run) -> None:
    """--strict ends with the status of a refusal when there is more than notes."""
    run("check-image", "old.img", "--strict")
    run("check-image", "old.img", "--strict", "--slot-size", "1MiB", status=6)


def test_without_memory_all_else_is_checked(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial that cannot be made is a warning."""
    words = ("check-image", "new.img", "--base", "old.img", "--memory", "2MiB")
    assert run(*words)["trial"] is None
    assert run(*words[:-2], "--no-trial")["trial"] is None


# ── deltas on a server ───────────────────────────────────────────────────────────────
def test_deltas_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is under way with its progress, what is made with its share of the full."""
    made = Delta(
        id=1,
        state="ready",
        origin="deployment",
        path="board/rootfs-2.img",
        base_sha256="ab" * 32,
        base_path="board/rootfs-1.img",
        new_sha256="cd" * 32,
        full_sha256="ef" * 32,
        devices=7,
        length=1 << 20,
        full_length=8 << 20,
        container="x.delta",
        cpu_ms=900,
        reason=None,
        attempts=1,
        step=None,
        progress=None,
        wanted_at="2030-06-01T12:00:00Z",
        changed_at="2030-06-01T12:00:00Z",
    )
    running: Delta = {
        **made,
        "state": "making",
        "length": None,
        "base_path": None,
        "step": "packing",
        "progress": 40,
        "reason": "\x1b[2J",
    }
    views.print_deltas([made, running])
    text = capsys.readouterr().out
    assert "ready" in text
    assert "1.0 MiB" in text
    assert "12.5 %" in text
    assert "making: packing 40 %" in text
    assert "abababababababab " in text
    assert "\x1b" not in text


# ── what terminals get ───────────────────────────────────────────────────────────────
def test_hostile_names_are_data(say: Callable[..., str], bench: Path) -> None:
    """A file name in an image does not drive a terminal."""
    tree = grow(bench / "evil", files=3)
    compress(tree, "boot/vmlinuz-\x1b[2J\x1b]0;owned\x07")
    settle(tree)
    text = say("check-image", str(build(tree, bench / "evil.img", *STEADY)))
    assert "\\x1b[2J" in text
    assert "owned" in text


def test_on_a_terminal_there_is_colour(bench: Path) -> None:
    """The same letters, with a background."""
    reader, writer = pty.openpty()
    program = (
        "from sealift.cli.main import main; main(['payload', 'inspect', 'new.delta'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=writer,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "90"},
        check=False,
        timeout=60,
    )
    os.close(writer)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert done.returncode == 0
    assert "\x1b[30;42m=" in text


@pytest.mark.parametrize("length", [1, 300_000, 6 << 20, (1 << 30) + 1, 1 << 36])
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_maps_fit(length: int, columns: int) -> None:
    """Few rows, no wider than the terminal (or what a map needs), all of the image."""
    picture = Map(length)
    picture.paint(0, length, Tone.NEW)
    lines = drawing.draw_map(picture, columns)
    rows = ["".join(text for text, _ in line) for line in lines[1:-1]]
    assert 1 <= len(rows) <= drawing.ROWS_MAX
    assert max(map(len, rows)) <= max(columns, 28)
    assert set("".join(row[12:] for row in rows)) == {"#"}


def test_findings_are_wrapped() -> None:
    """Long words stay whole; continued lines stand under the first."""
    finding = Finding("x", Severity.NOTE, "word " * 40, "c", "d", ("/" + "p" * 99,))
    lines = ["".join(t for t, _ in line) for line in drawing.draw_finding(finding, 60)]
    assert lines[1].startswith("  cause  word")
    assert lines[2].startswith("         word")
    assert lines[-1] == "  where  /" + "p" * 99


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512MiB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("4gib", 4 << 30),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    """Bytes, or binary units."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1MB", "1e999", "nan", "inf", "GiB", "1 2"]
)
def test_other_sizes_are_refused(text: str) -> None:
    """With how to write one."""
    with pytest.raises(InvalidConfigError):
        parse_size(text)
