"""Small files: whole or not at all, and never more than asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sealift.core.errors import (
    InvalidConfigError,
    LimitError,
    MalformedError,
    SealiftError,
    SpaceError,
    UnsafeNameError,
)
from sealift.repo.files import (
    DirectoryStore,
    digest_of,
    make_directory,
    read_as,
    read_bounded,
    write_atomic,
)
from sealift.repo.repository import DictStore, MetadataStore, newest, write_new


@pytest.fixture(params=["directory", "dict"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MetadataStore:
    """Every implementation of the port."""
    return DirectoryStore(tmp_path) if request.param == "directory" else DictStore()


def test_a_store_keeps_what_was_written(store: MetadataStore) -> None:
    """Read back, listed in order, absent without an error."""
    assert store.read("1.root.json") is None
    store.write("2.root.json", b"two")
    store.write("1.root.json", b"one")
    store.write("timestamp.json", b"old")
    store.write("timestamp.json", b"new")
    assert store.read("timestamp.json") == b"new"
    assert list(store.names()) == ["1.root.json", "2.root.json", "timestamp.json"]


def test_the_newest_version_is_a_number_not_a_text(store: MetadataStore) -> None:
    """10 is above 9, and other roles do not count."""
    for name in ("9.root.json", "10.root.json", "77.targets.json", "timestamp.json"):
        store.write(name, b"x")
    assert (newest(store, "root"), newest(store, "snapshot")) == (10, 0)


def test_a_version_is_written_once(store: MetadataStore) -> None:
    """The same again is no change; other bytes are refused."""
    assert write_new(store, "root", 1, b"one")
    assert not write_new(store, "root", 1, b"one")
    with pytest.raises(SealiftError):
        write_new(store, "root", 1, b"other")


NAMES = ["", ".", "..", "../1.root.json", "/x.json", "a/b.json", "1.root", "01.root.json",
         "x\0.json", ".hidden.json", "x" * 300 + ".json"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_store_takes_metadata_names_only(name: str, tmp_path: Path) -> None:
    """No name of a file is a path out of the directory."""
    store = DirectoryStore(tmp_path)
    with pytest.raises(UnsafeNameError):
        store.read(name)
    with pytest.raises(UnsafeNameError):
        store.write(name, b"x")
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_in_a_store_are_passed_over(tmp_path: Path) -> None:
    """A backup file or a note does not become metadata."""
    for name in ("1.root.json~", "README", ".1.root.json.part", "1.root.json"):
        (tmp_path / name).write_bytes(b"x")
    assert list(DirectoryStore(tmp_path).names()) == ["1.root.json"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    """At the limit it is read, above it is refused."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(read_bounded(path, 100)) == 100
    with pytest.raises(LimitError):
        read_bounded(path, 99)


def test_an_endless_file_is_refused() -> None:
    """A device that never ends is read up to the limit only."""
    with pytest.raises(LimitError):
        read_bounded(Path("/dev/zero"), 1000)


def test_refusals_name_the_file(tmp_path: Path) -> None:
    """Whatever a parser says, the human learns where."""
    path = tmp_path / "broken.json"
    path.write_bytes(b"x")

    def parse(_: bytes) -> None:
        raise MalformedError("not JSON")

    with pytest.raises(MalformedError, match=r"broken\.json: not JSON"):
        read_as(path, 10, parse)


def test_missing_files_are_errors_of_ours(tmp_path: Path) -> None:
    """Neither reading, hashing nor writing lets an OSError out."""
    missing = tmp_path / "no" / "file"
    for act in (
        lambda: read_bounded(missing, 1),
        lambda: digest_of(missing),
        lambda: write_atomic(missing, b"x", mode=0o600),
        lambda: make_directory(missing),
    ):
        with pytest.raises(InvalidConfigError):
            act()


def test_without_replacing_an_existing_file_stays(tmp_path: Path) -> None:
    """And no temporary file is left."""
    path = tmp_path / "file"
    write_atomic(path, b"one", mode=0o640, replace=False)
    with pytest.raises(InvalidConfigError):
        write_atomic(path, b"two", mode=0o640, replace=False)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o640)
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, sys
from pathlib import Path
from sealift.repo.files import write_atomic
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"x" * 5000, mode=0o600)
except Exception as error:
    print(error.code)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """No room is an error of its own, and nothing is half written."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == SpaceError.code
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """SHA-256, in pieces."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest_of(path).hex().startswith("ba7816bf8f01cfea")
