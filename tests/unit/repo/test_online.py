"""The server's online keys: made, shown to the desk, loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import (
    FormatError,
    InvalidConfigError,
    KeyUnreadableError,
    RefusedError,
)
from sealift.repo import online
from tests.vendor import director_root, image_root


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with fresh online keys and the file for the desk."""
    made = online.make(tmp_path)
    (tmp_path / "online-keys.json").write_bytes(online.to_json(made))
    return tmp_path


def test_the_desk_reads_what_the_server_wrote(keys: Path) -> None:
    """Five keys, each with its own id and name."""
    found = online.from_json((keys / "online-keys.json").read_bytes())
    loaded = online.load(keys).public()
    ids = [key.keyid for roles in found.values() for key in roles.values()]
    assert len(set(ids)) == 5
    assert ids == [key.keyid for roles in loaded.values() for key in roles.values()]


def test_existing_keys_are_not_overwritten(keys: Path) -> None:
    """Making keys twice in one place is refused."""
    with pytest.raises(InvalidConfigError):
        online.make(keys)


def test_a_missing_key_is_told(keys: Path) -> None:
    """A server does not start without one of its keys."""
    (keys / "image-timestamp.pem").unlink()
    with pytest.raises(KeyUnreadableError):
        online.load(keys)


def test_one_key_for_two_roles_is_refused(keys: Path) -> None:
    """A copied file is no second key."""
    shutil.copy(keys / "image-timestamp.pem", keys / "image-snapshot.pem")
    with pytest.raises(RefusedError):
        online.load(keys)


def test_keys_the_roots_do_not_name_are_refused(keys: Path) -> None:
    """Serving with unknown keys would look like an attack to every device."""
    with pytest.raises(RefusedError, match="is not in"):
        online.check_named(online.load(keys), director_root(), image_root())


def test_B11_demo_keys_stay_in_demos(tmp_path: Path) -> None:
    """Marked on disk and in the file for the desk."""
    raw = online.to_json(online.make(tmp_path, demo=True))
    with pytest.raises(RefusedError):
        online.from_json(raw)
    with pytest.raises(RefusedError):
        online.load(tmp_path)
    assert online.from_json(raw, allow_demo=True)
    assert online.load(tmp_path, allow_demo=True).public()


RSA = {"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": "x"}}
# what is wrong → what the timestamp key of the Image repository is replaced with
BAD: dict[str, Any] = {
    "nothing": None,
    "a text": "key",
    "an empty object": {},
    "no public part": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {}},
    "RSA": RSA,
    "not hex": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "zz"}},
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_refused(what: str, keys: Path) -> None:
    """Each key is looked at, whoever wrote the file."""
    found = json.loads((keys / "online-keys.json").read_bytes())
    found["image"]["timestamp"] = BAD[what]
    with pytest.raises((FormatError, RefusedError)):
        online.from_json(json.dumps(found).encode())


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"_type": "other"}', b"x" * 300_000]
)
def test_garbage_is_refused(raw: bytes) -> None:
    """Whatever file is named, the answer is an error of ours."""
    with pytest.raises(FormatError):
        online.from_json(raw)
