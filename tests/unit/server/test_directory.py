"""The server's directory: what a start adds to one that an older Sealift made."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from sealift.core import hpke
from sealift.core.errors import InvalidConfigError, KeyUnreadableError
from sealift.server.app import SystemChance, create
from sealift.server.config import Config, Layout
from sealift.server.directory import open_directory
from tests.unit.server.world import START, SetClock


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    create(tmp_path / "srv", Config(), SetClock(), SystemChance())
    return Layout(tmp_path / "srv")


def test_content_key_key_is_made_once(layout: Layout) -> None:
    """``init`` makes it for its owner only; starts keep it and show its public half."""
    kid = open_directory(layout.root, START).content.kid
    assert stat.S_IMODE(layout.key("content").stat().st_mode) == 0o600
    shown = json.loads(layout.content_key.read_bytes())
    assert (shown["v"], shown["kem"], shown["kid"]) == (1, "x25519", kid)
    assert hpke.Recipient.from_json(shown).kid == kid
    assert open_directory(layout.root, START).content.kid == kid


def test_older_directories_get_one(layout: Layout) -> None:
    """A directory from before sealed images opens, and has the key from then on."""
    layout.key("content").unlink()
    layout.content_key.unlink()
    kid = open_directory(layout.root, START).content.kid
    assert json.loads(layout.content_key.read_bytes())["kid"] == kid
    layout.content_key.unlink()  # can always be made again from the private half
    assert open_directory(layout.root, START).content.kid == kid
    assert layout.content_key.exists()


def test_a_bad_content_key_key_is_refused(layout: Layout) -> None:
    """Open to others, empty, or no key: no start, and never a fresh one instead."""
    key = layout.key("content")
    key.chmod(0o644)
    with pytest.raises(InvalidConfigError, match="open to others"):
        open_directory(layout.root, START)
    key.chmod(0o600)
    for raw in (b"", b"-----BEGIN PRIVATE KEY-----"):
        key.write_bytes(raw)
        with pytest.raises(KeyUnreadableError):
            open_directory(layout.root, START)
