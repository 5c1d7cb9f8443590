"""The demo's images: real software, the same bytes each time, and a check that bites."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sealift.core.errors import (
    FailedTransferError,
    InvalidInputError,
    MissingToolError,
    SlotError,
    SpaceError,
)
from sealift.sim import debian, ext4, images
from sealift.sim.debian import Package
from sealift.sim.images import SMALL, Builder, Pools, Recipe

KEPT = Path(__file__).resolve().parents[3] / ".venv/test-images"
"""Packages are fetched once per checkout; images are built anew by each run."""


@pytest.fixture(scope="module")
def pools() -> Pools:
    tools = ext4.find(KEPT / "tools")
    with debian.alone(KEPT):
        return Builder(KEPT, SMALL, tools, debian.quiet).pools()


@pytest.fixture
def builder(tmp_path: Path, pools: Pools) -> Builder:
    shutil.copytree(KEPT / "debs", tmp_path / "debs")
    return Builder(tmp_path, SMALL, ext4.find(KEPT / "tools"), debian.quiet)


def boot(image: images.Image, into: Path) -> Path:
    tools = ext4.find(KEPT / "tools")
    tools.check(image.path)
    return tools.extract(image.path, into)


def healthcheck(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "bin/busybox", "sh", root / "opt/tidegauge/healthcheck", root],
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_image_boots_and_answers(
    builder: Builder, pools: Pools, tmp_path: Path
) -> None:
    """A built image is a sound file system whose own programs pass its health check."""
    image = builder.build("1.0.0", pools.older)
    root = boot(image, tmp_path / "root")
    said = healthcheck(root)
    assert (said.returncode, said.stdout.strip()) == (
        0,
        "tidegauge 1.0.0: well: release zones app",
    )
    assert image.length == image.path.stat().st_size == SMALL.size
    status = (root / "var/lib/dpkg/status").read_text("utf-8")
    assert all(f"Version: {package.version}" in status for package in pools.older)


def test_an_unhealthy_image_boots_and_fails_its_check(
    builder: Builder, pools: Pools, tmp_path: Path
) -> None:
    """The unhealthy variant is a sound file system whose service cannot start."""
    image = builder.build("1.0.1", pools.newer, healthy=False)
    said = healthcheck(boot(image, tmp_path / "root"))
    assert said.returncode == 1
    assert "app: httpd: can't change directory" in said.stdout


@pytest.mark.parametrize(
    "broken",
    ["etc/sealift-release", "srv/tidegauge/state.json", "usr/share/zoneinfo/Europe"],
)
def test_the_check_notices_what_is_missing(
    builder: Builder, pools: Pools, tmp_path: Path, broken: str
) -> None:
    """Each part the health check names makes it fail when it is gone."""
    root = boot(builder.build("1.0.0", pools.older), tmp_path / "root")
    (root / broken).rename(root / "gone")
    assert healthcheck(root).returncode != 0


def test_the_same_input_makes_the_same_bytes(
    builder: Builder, pools: Pools, tmp_path: Path
) -> None:
    """Two builds of one recipe at different times and places are byte for byte equal."""
    first = builder.build("1.0.0", pools.older)
    other = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "debs", other / "debs")
    before = os.umask(0o077)
    try:
        again = Builder(other, SMALL, ext4.find(KEPT), debian.quiet).build(
            "1.0.0", pools.older
        )
    finally:
        os.umask(before)
    assert first.path != again.path
    assert first.sha256 == again.sha256


def test_versions_and_faults_make_other_images(pools: Pools) -> None:
    """Whatever decides the bytes decides the name a result is kept under."""
    recipes = [
        Recipe(SMALL, "1.0.0", pools.older),
        Recipe(SMALL, "1.0.1", pools.older),
        Recipe(SMALL, "1.0.0", pools.older, healthy=False),
        Recipe(images.FULL, "1.0.0", pools.older),
        Recipe(SMALL, "1.0.0", pools.older[1:]),
    ]
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


def test_pools_are_resolved_by_apt(pools: Pools) -> None:
    """Both pools hold the named packages; an updated one has two versions."""
    for pool in (pools.older, pools.newer):
        assert set(SMALL.packages) <= {package.name for package in pool}
    assert all(old.name == new.name and old != new for old, new in pools.updated)


def test_a_tree_too_large_is_refused(tmp_path: Path) -> None:
    """What does not fit leaves no image behind, and says how to help."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(4 << 20))
    image = tmp_path / "image"
    with pytest.raises(SpaceError, match="cannot put") as caught:
        ext4.find(KEPT).make(tree, image, 2 << 20)
    assert caught.value.hint
    assert not image.exists()


def test_what_is_no_file_system_does_not_boot(tmp_path: Path) -> None:
    """Random bytes are refused, both by the check and when read."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20))
    with pytest.raises(SlotError):
        ext4.find(KEPT).check(image)
    with pytest.raises(SlotError):
        ext4.find(KEPT).extract(image, tmp_path / "root")


def test_e2fsprogs_can_be_fetched(tmp_path: Path) -> None:
    """Without e2fsprogs on the machine, Debian's own does the same work."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    with debian.alone(KEPT):
        tools = ext4.fetch(KEPT / "tools")
    assert Path(tools.programs["mke2fs"]).is_relative_to(KEPT / "tools")
    tools.make(tree, tmp_path / "image", 1 << 20)
    tools.check(tmp_path / "image")
    root = tools.extract(tmp_path / "image", tmp_path / "root")
    assert (root / "file").read_text() == "content"


def test_names_are_checked_before_apt_sees_them(tmp_path: Path) -> None:
    """A name that apt could take for an option is refused."""
    with pytest.raises(InvalidInputError, match="not the name"):
        debian.fetch(["--option"], tmp_path / "debs")


def test_a_machine_without_apt_gets_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where apt is missing the error says what it is needed for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError) as caught:
        debian.Apt(tmp_path / "apt")
    assert "Debian" in str(caught.value.hint)


def test_an_unknown_package_is_refused(pools: Pools) -> None:
    """A package nobody offers ends with apt's own words and a hint."""
    with debian.alone(KEPT):
        apt = debian.Apt(KEPT / "apt")
        with pytest.raises(FailedTransferError, match="sealift-no-such-package") as got:
            apt.closure(["sealift-no-such-package"])
    assert got.value.hint


def test_apt_names_the_mirror_and_what_it_has(pools: Pools, tmp_path: Path) -> None:
    """Where packages come from, which there are, and other sources when told so."""
    with debian.alone(KEPT):
        apt = debian.Apt(KEPT / "apt")
        assert "Debian" in {found.label for found in apt.repositories()}
        assert "busybox-static" in apt.names("busybox")
        (newest,) = apt.newest(["busybox-static"])
    assert newest in pools.newer
    none = {"Dir::Etc::SourceList": os.devnull, "Dir::Etc::SourceParts": os.devnull}
    assert debian.Apt(tmp_path, options=none).repositories() == []


def test_a_package_that_is_gone_is_named(builder: Builder) -> None:
    """A cached package that vanished is named, with what to do."""
    with pytest.raises(FailedTransferError, match="busybox-static=0"):
        builder.build("1.0.0", (Package("busybox-static", "0"),))
