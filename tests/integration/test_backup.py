"""``sealift server backup`` and ``restore``: of a running server, after any damage."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server_process import RunningServer, made, sealift

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backup")


@pytest.fixture(scope="module")
def secret(here: Path) -> Path:
    path = here / "passphrase"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[RunningServer]:
    """A running server with a release and a device."""
    running = made(here / "srv")
    running.start()
    running.publish_roots()
    running.release("1.0.0", 1, here)
    running.device(here, "dev-0001")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def kept(server: RunningServer, here: Path, secret: Path) -> Path:
    """A backup of it, made while it runs."""
    place = here / "kept"
    done = back_up(server, place, secret)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["keys"] is True
    return place


def back_up(
    server: RunningServer, place: Path, secret: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = ["--out", place, "--passphrase-file", secret]
    return sealift("server", "backup", server.directory, *words, *more, "--json")


def restore(
    place: Path, target: Path | None, secret: Path
) -> subprocess.CompletedProcess[str]:
    where: str | Path = "--drill" if target is None else target
    return sealift(
        "server", "restore", place, where, "--passphrase-file", secret, "--json"
    )


def leaves(directory: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(directory / "sealift.db") as database:
        rows = database.execute("SELECT body FROM audit_leaf ORDER BY position")
        return [json.loads(row[0]) for row in rows]


def test_a_restored_server_serves_its_devices(
    server: RunningServer, here: Path, kept: Path, secret: Path
) -> None:
    """The same authority, releases, devices; a new token; no older Director metadata."""
    target = here / "again"
    done = restore(kept, target, secret)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    again = RunningServer(target, found["operator_token"], server.vendor)
    device = server.device(here, "dev-later")  # not in the backup
    caller = RunningServerCaller(server, here)
    before = caller.timestamp()
    again.start()
    try:
        with again.operator() as operator:
            assert [d["id"] for d in operator.devices()] == ["dev-0001"]
            assert [r["version"] for r in operator.releases()] == ["1.0.0"]
        after = RunningServerCaller(again, here).timestamp()
        assert after["signed"]["version"] >= before["signed"]["version"]
        device.server = again
        answer, _ = device.ask("/director/metadata/timestamp.json")
        assert answer.status == 401  # this one has to be enrolled again
    finally:
        again.stop()
    kinds = [leaf["kind"] for leaf in leaves(target)]
    assert kinds.index("server.restored") == kinds.index("token.rotated", 1) + 1
    for key in (server.directory / "keys").iterdir():
        there = target / "keys" / key.name
        assert there.read_bytes().split(b"-----")[1] == b"BEGIN PRIVATE KEY"
        assert there.stat().st_mode & 0o777 == 0o600


class RunningServerCaller:
    """The first device, at one server or the other."""

    def __init__(self, server: RunningServer, here: Path) -> None:
        from tests.integration.server_process import Caller
        from tests.unit.server.world import TestDevice

        files = here / "dev-0001.pem", here / "dev-0001.key"
        self.caller = Caller(server, TestDevice("dev-0001", {}), *files)

    def timestamp(self) -> dict[str, Any]:
        answer, body = self.caller.ask("/director/metadata/timestamp.json")
        assert answer.status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found


def test_a_drill_leaves_nothing_behind(here: Path, kept: Path, secret: Path) -> None:
    """Restored, looked at, thrown away; how long it took is told."""
    before = sorted(p.name for p in here.iterdir())
    done = restore(kept, None, secret)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["containers"], found["operator_token"]) == (1, None)
    assert sorted(p.name for p in here.iterdir()) == before


def test_the_next_backup_copies_what_is_new(
    server: RunningServer, here: Path, kept: Path, secret: Path
) -> None:
    """A container that is there stays; the database is one, and the newer one."""
    place = here / "twice"
    shutil.copytree(kept, place)
    (blob,) = (place / "blobs").iterdir()
    first = blob.stat().st_mtime_ns
    (old,) = place.glob("*.db")
    server.release("1.1.0", 2, here)
    assert back_up(server, place, secret).returncode == 0
    assert blob.stat().st_mtime_ns == first
    assert len(list((place / "blobs").iterdir())) == 2
    (new,) = place.glob("*.db")
    assert new.name != old.name
    assert leaves(server.directory)[-1]["kind"] == "server.backed_up"
    assert restore(place, None, secret).returncode == 0


def test_secrets_are_not_in_the_open(kept: Path, server: RunningServer) -> None:
    """Keys are encrypted, everything is for the owner only."""
    for path in (kept / "keys").iterdir():
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
    modes = {p.stat().st_mode & 0o077 for p in kept.rglob("*")}
    assert modes == {0}
    plain = (server.directory / "keys" / "tls-ca.pem").read_bytes().splitlines()[2]
    assert plain not in b"".join(p.read_bytes() for p in kept.rglob("*") if p.is_file())


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _first(place: Path, pattern: str) -> Path:
    return next(iter(sorted(place.glob(pattern))))


def _edit_leaf(place: Path) -> None:
    """The database is another one, and the manifest says so."""
    path = _first(place, "*.db")
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER audit_leaf_no_update")
        database.execute(
            "UPDATE audit_leaf SET body = CAST(replace(CAST(body AS TEXT), "
            "'dev-0001', 'dev-0002') AS BLOB)"
        )
    database.close()
    _sign(place, path.name)


def _cut_log(place: Path) -> None:
    path = _first(place, "*.db")
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER audit_leaf_no_delete")
        database.execute(
            "DELETE FROM audit_leaf WHERE position = "
            "(SELECT max(position) FROM audit_leaf)"
        )
    database.close()
    _sign(place, path.name)


def _sign(place: Path, name: str) -> None:
    from hashlib import sha256

    manifest = json.loads((place / "backup.json").read_text())
    manifest["files"][name] = sha256((place / name).read_bytes()).hexdigest()
    (place / "backup.json").write_text(json.dumps(manifest))


def _name(place: Path, name: str) -> None:
    manifest = json.loads((place / "backup.json").read_text())
    manifest["files"][name] = "00" * 32
    (place / "backup.json").write_text(json.dumps(manifest))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a container that rotted": (lambda p: _flip(_first(p, "blobs/*")), "device.state"),
    "a container that is gone": (
        lambda p: _first(p, "blobs/*").unlink(),
        "device.state",
    ),
    "a database that rotted": (lambda p: _flip(_first(p, "*.db")), "device.state"),
    "a key that rotted": (lambda p: _flip(_first(p, "keys/*.pem")), "device.state"),
    "a leaf that was changed": (_edit_leaf, "device.state"),
    "a log that was cut": (_cut_log, "device.state"),
    "no manifest": (lambda p: (p / "backup.json").unlink(), "config.invalid"),
    "a manifest of something else": (
        lambda p: (p / "backup.json").write_text("[1]"),
        "config.invalid",
    ),
    "a name that leads out": (lambda p: _name(p, "../x"), "config.invalid"),
    "an absolute name": (lambda p: _name(p, "/etc/x"), "config.invalid"),
    "a name of nothing": (lambda p: _name(p, "public/x"), "device.state"),
}


@pytest.mark.parametrize("how", HARM)
def test_what_is_not_whole_is_not_restored(
    tmp_path: Path, kept: Path, secret: Path, how: str
) -> None:
    """Told with a code, and nothing lies under the server's name."""
    harm, code = HARM[how]
    place = tmp_path / "place"
    shutil.copytree(kept, place)
    harm(place)
    done = restore(place, tmp_path / "srv", secret)
    assert done.returncode != 0
    assert json.loads(done.stdout or done.stderr)["error"]["code"] == code
    assert sorted(p.name for p in tmp_path.iterdir()) == ["place"]


def test_a_wrong_passphrase(tmp_path: Path, kept: Path) -> None:
    """Nothing is restored."""
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    done = restore(kept, tmp_path / "srv", wrong)
    assert json.loads(done.stdout or done.stderr)["error"]["code"] == "key.passphrase"
    assert not (tmp_path / "srv").exists()


def test_without_keys_only_together_with_them(
    server: RunningServer, tmp_path: Path, secret: Path
) -> None:
    """Kept apart is fine; restored without is not."""
    place = tmp_path / "place"
    done = back_up(server, place, secret, "--without-keys")
    assert json.loads(done.stdout)["keys"] is False
    assert list((place / "keys").iterdir()) == []
    assert restore(place, tmp_path / "srv", secret).returncode == 2


@pytest.mark.parametrize("how", ["other things", "a file"])
def test_a_place_that_holds_something_else(
    server: RunningServer, tmp_path: Path, secret: Path, how: str
) -> None:
    """Nobody's files are mixed with a backup."""
    place = tmp_path / "place"
    if how == "a file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").write_text("mine")
    assert back_up(server, place, secret).returncode == 2
    assert restore(place, server.directory, secret).returncode == 2


def test_a_restore_never_overwrites(
    server: RunningServer, kept: Path, secret: Path
) -> None:
    """The name is taken: nothing happens."""
    before = (server.directory / "server.toml").read_bytes()
    assert restore(kept, server.directory, secret).returncode == 2
    assert (server.directory / "server.toml").read_bytes() == before
