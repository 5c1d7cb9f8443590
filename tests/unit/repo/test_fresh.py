"""Directories appear whole or not at all, whoever is killed in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sealift.core.errors import BusyError, InvalidConfigError
from sealift.repo.fresh import fresh_directory

KILLED = """
import os, signal, sys
from pathlib import Path
from sealift.repo.fresh import fresh_directory
with fresh_directory(Path(sys.argv[1]), mode=0o700) as draft:
    (draft / "secret").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_appears_when_everything_is_in_it(tmp_path: Path) -> None:
    """Not before, and with its mode."""
    target = tmp_path / "new"
    with fresh_directory(target, mode=0o700) as draft:
        (draft / "file").write_text("x")
        assert not target.exists()
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "file"]
    assert target.stat().st_mode & 0o777 == 0o700


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ends the body."""
    for error in (ValueError, KeyboardInterrupt):
        with (
            pytest.raises(error),
            fresh_directory(tmp_path / "new", mode=0o700) as draft,
        ):
            (draft / "file").write_text("x")
            raise error
        assert list(tmp_path.iterdir()) == []


def test_an_existing_thing_stays(tmp_path: Path) -> None:
    """A file, a filled directory, a link to nowhere; an empty directory is taken."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled/file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "filled", "link"):
        with (
            pytest.raises(InvalidConfigError, match="exists already"),
            fresh_directory(tmp_path / name, mode=0o700),
        ):
            raise AssertionError("the body must not run")
    (tmp_path / "empty").mkdir()
    with fresh_directory(tmp_path / "empty", mode=0o700) as draft:
        (draft / "file").write_text("x")
    assert (tmp_path / "empty/file").exists()


def test_a_killed_process_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    """Half a directory never gets the name, and does not lie about for ever."""
    target = tmp_path / "new"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode == -9
    assert [p.name for p in tmp_path.iterdir()] == [".new.part"]
    with fresh_directory(target, mode=0o700) as draft:
        assert list(draft.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """The second one neither waits nor destroys."""
    target = tmp_path / "new"
    with fresh_directory(target, mode=0o700) as draft:
        (draft / "file").write_text("x")
        with pytest.raises(BusyError), fresh_directory(target, mode=0o700):
            raise AssertionError("the body must not run")
        assert (draft / "file").exists()
    assert (target / "file").exists()


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    """A missing parent is an error of ours."""
    with (
        pytest.raises(InvalidConfigError),
        fresh_directory(tmp_path / "no/such", mode=0o700),
    ):
        raise AssertionError("the body must not run")
