"""A desk on disk, made once by a real ceremony, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sealift.sign.ceremony import Plan, hold
from sealift.sign.desk import Desk, Policy
from tests.vendor import NOW, online_keys


@pytest.fixture(scope="session")
def first_desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A desk of three people with unencrypted keys; never changed."""
    path = tmp_path_factory.mktemp("desks") / "desk"
    hold(path, online_keys(), Plan(), Policy(), passphrase=None, now=NOW)
    return path


@pytest.fixture
def desk(first_desk: Path, tmp_path: Path) -> Desk:
    """A desk of one's own."""
    return Desk.open(Path(shutil.copytree(first_desk, tmp_path / "desk")))
