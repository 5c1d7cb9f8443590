"""The first command a stranger runs: what it does without a network, and says."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import bootstrap, debs

ROOT = Path(__file__).resolve().parent.parent


def _run(module: str, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", module, *arguments],
        cwd=ROOT,
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_bootstrap_changes_nothing() -> None:
    """The stamp of this environment is current: `make` starts at once, silently."""
    if not bootstrap.STAMP.exists():
        pytest.fail("this environment was not made by `make`")
    assert bootstrap.up_to_date(), "pyproject.toml or the lock changed: run `make`"


def test_the_stamp_sees_every_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed lock, project file or bootstrap makes the environment anew."""
    project = tmp_path / "pyproject.toml"
    others = [tmp_path / "requirements.lock", tmp_path / "tools/bootstrap.py"]
    (tmp_path / "tools").mkdir()
    for path in (project, *others):
        path.write_text("")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    seen = {bootstrap.fingerprint()}
    project.write_text("[tool.ruff]\nline-length = 88\n")
    assert bootstrap.fingerprint() in seen, "a linter's setting installs nothing"
    project.write_text("[project]\ndependencies = ['x']\n")
    seen.add(bootstrap.fingerprint())
    for path in others:
        path.write_text("changed")
        seen.add(bootstrap.fingerprint())
    assert len(seen) == 4


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 gets a sentence, and what to do about it."""
    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    with pytest.raises(bootstrap.BootstrapError, match=r"needs Python 99\.0.*PYTHON="):
        bootstrap.bootstrap()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("CERTIFICATE_VERIFY_FAILED", "PIP_CERT"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "Nothing was installed"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Temporary failure in name resolution", "Is there a network"),
    ],
)
def test_a_failing_pip_gets_advice(said: str, advice: str) -> None:
    """The usual failures end in what to do."""
    assert advice in bootstrap.advice(said)


def test_a_machine_without_apt_gets_a_hint(tmp_path: Path) -> None:
    """No apt-get: one line that says what it was for."""
    done = _run("tools.debs", str(tmp_path), "surely-not-fetched-yet")
    assert done.returncode == 1
    assert "no apt-get" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "-o", "Foo", "a b", "../x", "x;y"])
def test_only_package_names_reach_apt(name: str, tmp_path: Path) -> None:
    """An option or a path is not a package."""
    with pytest.raises(debs.DebsError, match="not the name of a Debian package"):
        debs.fetch([name], tmp_path / "debs")


def test_what_was_fetched_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the record in place no program runs, so it works without a network."""
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs.apt").mkdir()
    record = tmp_path / "debs.apt/unpacked.json"
    record.write_text(json.dumps({"softhsm2": []}))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert debs.fetch(["softhsm2"], tmp_path / "debs") == tmp_path / "debs"


def test_only_root_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """--install is refused for anyone else, with the way that needs no root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(debs.DebsError, match="without --install nothing needs root"):
        debs.install(["softhsm2"])


@pytest.mark.skipif(not Path("/usr/bin/apt-get").exists(), reason="needs Debian's apt")
def test_a_package_comes_without_root(tmp_path: Path) -> None:
    """apt-get in private directories brings a real, checked package."""
    content = debs.fetch(["hostname"], tmp_path / "debs")
    assert list(content.glob("*bin/hostname"))


def test_the_bootstrap_can_be_read_by_an_old_python() -> None:
    """Its syntax is old and it imports nothing of ours until it is needed."""
    text = (ROOT / "tools/bootstrap.py").read_text("utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    imported = [
        name.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    ]
    assert "tomllib" not in imported
    assert "debs" not in imported
