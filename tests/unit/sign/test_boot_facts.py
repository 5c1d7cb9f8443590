"""How an image boots: checked from its bytes when it is packed, told when it is signed."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import FormatError, RefusedError
from sealift.core.types import Artifact, Bootable, BootKind
from sealift.repo.entries import Listed
from sealift.repo.image import propose_targets
from sealift.repo.repository import read, sign
from sealift.repo.signing import propose
from sealift.sign.desk import Desk
from sealift.sign.pack import Description, pack
from sealift.sign.release import Release, read_release
from sealift.sign.review import Level, compare_image, require_consent
from sealift.sign.secure_boot.image import read_facts
from sealift.sim.boot_files import fit_file, joined, line_for, uki_file
from tests.unit.sign.test_review import ROOT as IMAGE_ROOT
from tests.unit.sign.test_review import judged, release, told
from tests.vendor import NOW, artifact, people

SALT = bytes(range(32))
ROOT = shake_256(b"root").digest(3 * 4096)
OTHER = shake_256(b"other").digest(3 * 4096)
SIGNED = joined(ROOT, SALT, fit_file(line_for(ROOT, SALT)), BootKind.FIT)
UNSIGNED = joined(ROOT, SALT, uki_file(line_for(ROOT, SALT)))
DESCRIBED = Description("board", "rootfs", "1.0.0", ("board-r1",), 3)


def packed(
    desk: Desk, place: Path, image: tuple[bytes, Bootable], **options: Any
) -> Release | None:
    content, facts = image
    (place / "slot.img").write_bytes(content)
    (place / "slot.img.boot.json").write_text(json.dumps(facts.to_json()))
    return pack(
        place / "slot.img",
        place / "rel",
        DESCRIBED,
        desk,
        now=NOW,
        bootable=place / "slot.img.boot.json",
        **options,
    )


# ── packing ──────────────────────────────────────────────────────────────────────────
def test_the_facts_are_signed_with_the_rest(desk: Desk, tmp_path: Path) -> None:
    """In release.json, and in the entry of the metadata that is to be signed."""
    found = packed(desk, tmp_path, SIGNED)
    assert found is not None
    assert found.listed.artifact.bootable == SIGNED[1]
    assert read_release(tmp_path / "rel") == found
    request = json.loads((tmp_path / "rel/request.json").read_bytes())
    entry = request["proposed"]["signed"]["targets"]["board/rootfs-1.0.0.img"]
    assert entry["custom"]["boot"] == SIGNED[1].to_json()


def test_an_unsigned_boot_file_needs_consent(desk: Desk, tmp_path: Path) -> None:
    """Whoever can write to a disk could exchange it."""
    with pytest.raises(RefusedError) as caught:
        packed(desk, tmp_path, UNSIGNED)
    assert "--accept unsigned-boot-file" in str(caught.value.hint)
    assert not (tmp_path / "rel").exists()
    assert packed(desk, tmp_path, UNSIGNED, accept=["unsigned-boot-file"]) is not None


LIES: dict[str, tuple[bytes, Bootable]] = {
    "another root's boot file": joined(
        ROOT, SALT, fit_file(line_for(OTHER, SALT)), BootKind.FIT
    ),
    "another root": (
        joined(OTHER, SALT, fit_file(line_for(ROOT, SALT)), BootKind.FIT)[0],
        SIGNED[1],
    ),
    "another digest": (SIGNED[0], replace(SIGNED[1], sha256=bytes(32))),
    "another place": (SIGNED[0], replace(SIGNED[1], offset=4096)),
    "another kind": (SIGNED[0], replace(SIGNED[1], kind=BootKind.UKI)),
    "a changed block": (b"x" + SIGNED[0][1:], SIGNED[1]),
}


@pytest.mark.parametrize("lie", LIES)
def test_c_11_facts_that_are_not_those_of_the_bytes(
    lie: str, desk: Desk, tmp_path: Path
) -> None:
    """All is recomputed; no word accepts it, and nothing is written."""
    with pytest.raises(RefusedError):
        packed(desk, tmp_path, LIES[lie], accept=["unsigned-boot-file"])
    assert not (tmp_path / "rel").exists()


def test_a_dry_run_checks_as_well(desk: Desk, tmp_path: Path) -> None:
    """What it would refuse it refuses; and it writes nothing."""
    with pytest.raises(RefusedError):
        packed(desk, tmp_path, LIES["another root"], dry_run=True)
    assert packed(desk, tmp_path, SIGNED, dry_run=True) is None


def test_facts_that_have_not_the_form(tmp_path: Path) -> None:
    """They are refused before the image is read."""
    path = tmp_path / "facts.json"
    for text in ("{}", "[]", '{"v": 2}', json.dumps({**SIGNED[1].to_json(), "v": 2})):
        path.write_text(text)
        with pytest.raises(FormatError):
            read_facts(path)


# ── reviewing ────────────────────────────────────────────────────────────────────────
def bootable(image: tuple[bytes, Bootable], version: str = "1.1.0") -> Any:
    content, facts = image
    digest = sha256(content).digest()
    length = len(content)
    return artifact(version, 3, sha256=digest, length=length, bootable=facts)


def test_the_review_names_boot_file_and_root_hash() -> None:
    """In plain words, and without a danger."""
    found = judged(release(bootable(SIGNED)))
    assert {finding.level for finding in found.findings} == {Level.FACT}
    text = told(found)
    for word in (
        "it boots verified: a FIT image of",
        SIGNED[1].sha256.hex(),
        f"3 blocks with root hash {SIGNED[1].root_hash.hex()}",
    ):
        assert word in text
    assert "unified kernel image" in told(judged(release(bootable(UNSIGNED))))


def test_a_line_that_stops_saying_it_needs_consent() -> None:
    """Devices that insist on verified boot would refuse it."""
    before: Artifact = replace(bootable(SIGNED, "1.0.0"), release_counter=2)
    first = propose_targets(None, add=[Listed(before, 1)], now=NOW)
    base = read(sign(first, people("image", "targets")[:2]), type(first))
    after = propose_targets(first, add=[Listed(artifact("1.1.0", 3), 2)], now=NOW)
    request = propose("image", after, base=base, root=IMAGE_ROOT)
    found = judged(request)
    assert found.words() == ["unverified-boot"]
    with pytest.raises(RefusedError):
        require_consent(found, [])
    require_consent(found, ["unverified-boot"])


def test_an_own_build_is_checked_as_it_was_packed(tmp_path: Path) -> None:
    """Boot file and root of the signer's build belong together, or it is not signed."""
    mine = tmp_path / "mine.img"
    mine.write_bytes(SIGNED[0])
    found = compare_image(release(bootable(SIGNED)), mine)
    assert found.level is Level.FACT
    assert "belong together" in found.text
    lie = LIES["another root's boot file"]
    mine.write_bytes(lie[0])
    found = compare_image(release(bootable(lie)), mine)
    assert found.level is Level.REFUSED
