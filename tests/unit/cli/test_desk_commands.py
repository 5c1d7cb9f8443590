"""`init`, `keys` and `release` as people type them, from an empty directory to a release."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealift.cli.main import main
from sealift.core.hpke import PrivateKey
from sealift.repo import online
from sealift.repo.signing import finish
from sealift.sign.content_key import write_content_key
from sealift.sign.desk import Desk
from sealift.sign.travel import Letter

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a desk, a server's public keys, a passphrase and an image."""
    home = tmp_path_factory.mktemp("office")
    (home / "srv").mkdir()
    keys = online.make(home / "srv")
    (home / "online-keys.json").write_bytes(online.to_json(keys))
    (home / "pass").write_text("correct horse\n")
    (home / "wrong").write_text("battery staple\n")
    (home / "image").write_bytes(b"image" * 5000)
    words = ["--online", str(home / "online-keys.json")]
    words += ["--passphrase-file", str(home / "pass"), "--json"]
    assert main(["init", str(home / "desk"), *words]) == 0
    return home


@pytest.fixture
def office(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    home = tmp_path / "office"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def run(office: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json; its value, or its error if a status is expected."""

    def call(*words: str, status: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == status
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return json.loads(printed.out)

    return call


PACK = (
    "release", "pack", "image", "--desk", "desk", "--product", "board", "--component",
    "rootfs", "--hardware-id", "r1", "--counter", "3",
)  # fmt: skip


def packed(run: Run, version: str = "1.0.0", out: str = "rel") -> Any:
    return run(*PACK, "--version", version, "--out", out)


def sign(run: Run, request: str, *names: str, **options: Any) -> Any:
    keys = [w for name in names for w in ("--key", f"desk/keys/{name}.pem")]
    words = options.pop("more", [])
    return run(
        "release",
        "sign",
        request,
        *keys,
        "--passphrase-file",
        "pass",
        *words,
        **options,
    )


# ── from nothing to a release ────────────────────────────────────────────────────────
def test_a_packed_release_is_shown(
    run: Run, office: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its facts, as JSON and for people; how it boots is said or not."""
    made = packed(run)
    assert run("release", "show", "rel")["artifact"] == made["artifact"]
    assert main(["release", "show", "rel"]) == 0
    said = capsys.readouterr().out
    assert "boots      -" in said
    assert made["artifact"]["sha256"] in said


def test_a_release_by_two_people_on_two_machines(run: Run, office: Path) -> None:
    """One signs in place, one sends back a file, and it is complete."""
    assert packed(run)["written"]
    assert run("release", "review", "rel", "--desk", "desk")["accept"] == []
    (office / "bob").mkdir()
    shutil.copy("rel/request.json", "bob/request.json")
    sign(
        run, "bob/request.json", "image-targets-2", more=["--detached", "bob/sig.json"]
    )
    assert Letter.open(office / "bob").request.proposed.signatures == {}
    found = sign(run, "rel", "image-targets-1")
    assert not found["complete"]
    found = run("release", "status", "rel", "--add", "bob/sig.json")
    assert found["complete"]
    letter = Letter.open(office / "rel").with_signatures([office / "bob/sig.json"])
    assert finish(letter.request)


def test_text_for_people(
    office: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json: sentences, and the digest to compare."""
    packed(run)
    assert main(["release", "review", "rel", "--desk", "desk"]) == 0
    text = capsys.readouterr().out
    assert "new image board/rootfs-1.0.0.img: version 1.0.0" in text
    assert "sha256 of the signed bytes: " in text
    for words in (
        ["keys", "list", "desk"],
        ["keys", "show", "desk/keys/image-root-1.pub"],
        ["release", "list", "desk"],
        ["release", "status", "rel"],
    ):
        assert main(words) == 0
        assert capsys.readouterr().out


def test_an_own_build_is_compared(run: Run, office: Path) -> None:
    """--image with the same bytes is a fact, with others it is refused."""
    packed(run)
    own = ["--desk", "desk", "--image"]
    assert not run("release", "review", "rel", *own, "image")["refused"]
    assert run("release", "review", "rel", *own, "pass")["refused"]


def test_a_signer_away_from_the_desk(run: Run, office: Path) -> None:
    """A key on a stick needs a Root of one's own, or the word for going without."""
    packed(run)
    stick = office / "stick"
    stick.mkdir()
    shutil.copy("desk/keys/image-targets-1.pem", stick)
    words = ["release", "sign", "rel", "--key", "stick/image-targets-1.pem"]
    words += ["--passphrase-file", "pass"]
    found = run(*words, status=6)
    assert "--accept unknown-root" in found["error"]["hint"]
    shutil.copy("desk/metadata/image/1.root.json", stick)
    run(*words, "--root", "stick/1.root.json")
    run(*words, "--accept", "unknown-root")


def test_a_passphrase_may_be_wrong(run: Run, office: Path) -> None:
    """Told by a code, and the request stays as it was."""
    packed(run)
    before = (office / "rel/request.json").read_bytes()
    key = ["--key", "desk/keys/image-targets-1.pem", "--passphrase-file"]
    for file in ("wrong", "missing"):
        found = run("release", "sign", "rel", *key, file, status=8)
        assert found["error"]["code"] == "key.passphrase"
    assert (office / "rel/request.json").read_bytes() == before


def test_a_sealed_release_with_a_delta(
    run: Run, office: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sealed for the key the desk has or is told; without one the hint says where."""
    key = PrivateKey("x25519", bytes([9] * 32)).recipient
    write_content_key(office / "content-key.json", key)
    (office / "old").write_bytes(b"image" * 4999 + b"x" * 5)
    words = (*PACK, "--version", "1.0.0")
    found = run(*words, "--out", "rel", "--seal", status=2)["error"]
    assert found["code"] == "config.invalid"
    assert "content-key.json" in found["hint"]
    named = ("--content-key", "content-key.json")
    run(*words, "--out", "rel", *named, "--base", "old", "--dry-run")
    assert not (office / "rel").exists()
    found = run(*words, "--out", "rel", *named)
    assert found["sealed"]["wrap"]["kid"] == key.kid
    shutil.copy("content-key.json", "desk/")
    capsys.readouterr()
    assert main([*words, "--out", "two", "--seal", "--base", "old"]) == 0
    printed = capsys.readouterr()
    assert f"for key {key.kid}" in printed.out
    assert "1 of 1 deltas would not be worth it" in printed.err
    assert sorted(path.name for path in (office / "two").iterdir()) == [
        "board-rootfs-1.0.0.full.sealed",
        "release.json",
        "request.json",
    ]


def test_a_desk_is_made_with_the_servers_key(run: Run, office: Path) -> None:
    """`init --content-key` keeps it; a spoilt one stops the ceremony before it."""
    key = PrivateKey("p256", bytes([9] * 32)).recipient
    write_content_key(office / "content-key.json", key)
    words = ["init", "desk2", "--online", "online-keys.json"]
    words += ["--passphrase-file", "pass", "--content-key", "content-key.json"]
    assert run(*words)["content_key"] == key.kid
    assert Desk.open(office / "desk2").content_key() == key
    (office / "content-key.json").write_text('{"v": 1}')
    words[1] = "desk3"
    run(*words, status=3)
    assert not (office / "desk3").exists()


def test_dry_runs_write_nothing(run: Run, office: Path) -> None:
    """Every writing command of the desk can be tried."""
    packed(run)
    before = {p: p.stat().st_mtime_ns for p in sorted(office.rglob("*"))}
    key = ["--key", "desk/keys/image-targets-1.pem", "--passphrase-file", "pass"]
    run("release", "sign", "rel", *key, "--dry-run")
    run(*PACK, "--version", "2.0.0", "--out", "rel2", "--dry-run")
    run("release", "propose", "rel", "--desk", "desk", "--dry-run")
    run("release", "renew", "--desk", "desk", "--out", "renew.json", "--dry-run")
    run("keys", "renew", "desk", "image", "--out", "root.json", "--dry-run")
    run("init", "desk2", "--online", "online-keys.json", "--dry-run")
    assert {p: p.stat().st_mtime_ns for p in sorted(office.rglob("*"))} == before


def test_dangers_stop_a_script(run: Run, office: Path) -> None:
    """Not interactive means not asked: without its word the danger stays."""
    packed(run)
    run("release", "renew", "--desk", "desk", "--out", "renew.json")
    root = ["keys", "rotate", "desk", "image", "--role", "targets", "--threshold", "1"]
    run(*root, "--out", "root.json")
    found = sign(run, "root.json", "image-root-1", status=6)
    assert "lower-threshold" in found["error"]["hint"]
    sign(run, "root.json", "image-root-1", more=["--accept", "lower-threshold"])


# ── keys ─────────────────────────────────────────────────────────────────────────────
def test_every_key_is_listed_with_its_place(run: Run, office: Path) -> None:
    """Nine files and five keys on the server."""
    rows = run("keys", "list", "desk")
    places = [row["file"] for row in rows]
    assert (len(rows), places.count("on the server")) == (14, 5)
    (office / "desk/keys/image-root-1.pem").unlink()
    rows = run("keys", "list", "desk")
    assert [r["file"] for r in rows if r["key"] == "image-root-1"] == ["elsewhere"]


def test_a_key_is_made_checked_and_put_to_use(run: Run, office: Path) -> None:
    """generate, check, rotate, sign by old and new, accept."""
    word = ["--passphrase-file", "pass"]
    run("keys", "generate", "fresh.pem", "--algorithm", "ecdsa-p256", *word)
    run("keys", "check", "fresh.pem", *word)
    run(
        "keys", "rotate", "desk", "image", "--role", "root", "--remove",
        "image-root-1", "--add", "fresh.pub", "--out", "root.json",
    )  # fmt: skip
    consent = ["--accept", "new-key", "--accept", "removed-key"]
    sign(run, "root.json", "image-root-2", "image-root-3", more=consent)
    found = run("keys", "accept", "desk", "root.json")
    assert found == {"repository": "image", "root_version": 2}


def test_an_unfinished_root_is_not_accepted(run: Run, office: Path) -> None:
    """Below the threshold the desk keeps its Root."""
    run("keys", "renew", "desk", "director", "--out", "root.json")
    sign(run, "root.json", "director-root-1")
    found = run("keys", "accept", "desk", "root.json", status=3)
    assert found["error"]["code"] == "metadata.signature"
    assert not (office / "desk/metadata/director/2.root.json").exists()


def test_a_lost_key_is_recovered(run: Run, office: Path) -> None:
    """The command makes the new key and the request; the others sign."""
    (office / "desk/keys/director-root-2.pem").unlink()
    word = ["--lost", "director-root-2", "--passphrase-file", "pass"]
    run("keys", "recover", "desk", "director", *word, "--out", "root.json")
    consent = ["--accept", "new-key", "--accept", "removed-key"]
    sign(run, "root.json", "director-root-1", "director-root-3", more=consent)
    assert run("keys", "accept", "desk", "root.json")["root_version"] == 2


def test_two_lost_keys_of_three_are_the_end(run: Run, office: Path) -> None:
    """Said with the way out, and no key is made."""
    words = ["--lost", "image-root-1", "--lost", "image-root-2", "--out", "root.json"]
    found = run("keys", "recover", "desk", "image", *words, status=6)
    assert "docs/key-ceremony.md" in found["error"]["hint"]
    assert not list((office / "desk/keys").glob("*.b.pem"))


def test_new_online_keys(run: Run, office: Path) -> None:
    """A server with other keys gets its Root proposed."""
    (office / "srv2").mkdir()
    raw = online.to_json(online.make(office / "srv2"))
    (office / "new.json").write_bytes(raw)
    words = ["--online", "new.json", "--out", "root.json"]
    found = run("keys", "rotate-online", "desk", "image", *words)
    assert found["accept"] == ["new-key", "removed-key"]


# ── bad input ────────────────────────────────────────────────────────────────────────
# what is typed → exit status, code
TYPED: dict[str, tuple[list[str], int, str]] = {
    "no such desk": (["keys", "list", "nowhere"], 2, "config.invalid"),
    "a file as desk": (["keys", "list", "image"], 2, "config.invalid"),
    "no such repository": (
        ["keys", "renew", "desk", "other", "--out", "x"], 2, "config.invalid",
    ),
    "no such role": (
        ["keys", "rotate", "desk", "image", "--role", "x", "--out", "y"],
        6, "policy.refused",
    ),
    "no request": (["release", "status", "nowhere"], 2, "config.invalid"),
    "an image as request": (["release", "status", "image"], 3, "format.malformed"),
    "an empty file as request": (["release", "status", "empty"], 3, "format.malformed"),
    "a device as request": (["release", "status", "/dev/zero"], 3, "format.limit"),
    "an image as public key": (["keys", "show", "image"], 3, "format.malformed"),
    "an image as key": (["keys", "check", "image"], 8, "key.unreadable"),
    "a path as version": (
        [*PACK, "--version", "../x", "--out", "rel"], 3, "payload.name",
    ),
    "a place that is taken": (
        [*PACK, "--version", "1", "--out", "desk"], 2, "config.invalid",
    ),
    "an image that is not": (
        ["release", "pack", "nothing", *PACK[3:], "--version", "1", "--out", "r"],
        2, "config.invalid",
    ),
    "an image without bytes": (
        ["release", "pack", "empty", *PACK[3:], "--version", "1", "--out", "r"],
        3, "format.limit",
    ),
    "a negative counter": (
        [*PACK[:-1], "-1", "--version", "1", "--out", "rel"], 2, "config.invalid",
    ),
    "an unknown option": (["release", "list", "desk", "--what"], 2, "config.invalid"),
    "an external key without a file": (
        ["init", "d", "--online", "online-keys.json", "--external", "x"],
        2, "config.invalid",
    ),
    "an image as online keys": (
        ["init", "d", "--online", "image"], 3, "format.malformed",
    ),
    "a desk that exists": (
        ["init", "desk", "--online", "online-keys.json", "--passphrase-file", "pass"],
        2, "config.invalid",
    ),
    "two people": (
        ["init", "d", "--online", "online-keys.json", "--people", "2",
         "--passphrase-file", "pass"],
        6, "policy.refused",
    ),
    "an algorithm that is not": (
        ["keys", "generate", "k.pem", "--algorithm", "rsa", "--passphrase-file", "pass"],
        6, "policy.refused",
    ),
    "nobody to ask": (["keys", "generate", "k.pem"], 8, "key.passphrase"),
}  # fmt: skip


@pytest.mark.parametrize("what", TYPED)
def test_bad_input_is_told(
    what: str, run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and exit status, no traceback, nothing written."""
    (office / "empty").write_bytes(b"")
    (office / "image").chmod(0o600)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = sorted(office.rglob("*"))
    words, status, code = TYPED[what]
    assert run(*words, status=status)["error"]["code"] == code
    assert sorted(office.rglob("*")) == before


def test_a_directory_nobody_may_write_to(run: Run, office: Path) -> None:
    """Read-only media are told, and nothing is half made."""
    if os.geteuid() == 0:
        target = "/proc/rel"
    else:
        (office / "closed").mkdir(mode=0o500)
        target = "closed/rel"
    found = run(*PACK, "--version", "1.0.0", "--out", target, status=2)
    assert found["error"]["code"] == "config.invalid"


def test_an_interrupt_while_packing_leaves_nothing(office: Path) -> None:
    """Ctrl-C ends with 130 and without a half release."""
    (office / "image").write_bytes(os.urandom(64 << 20))
    words = [*PACK, "--version", "1.0.0", "--out", "rel"]
    packing = subprocess.Popen(
        [sys.executable, "-c", "from sealift.cli.main import main; raise SystemExit(main())",
         *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (office / ".rel.part").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    packing.send_signal(signal.SIGINT)
    assert packing.wait(60) == 130
    assert not list(office.glob("*rel*"))
