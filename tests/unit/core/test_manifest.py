"""What a device says is signed by every ECU and held against the inventory: M1 to M14."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core import canonical
from sealift.core.errors import LimitError, ReportInvalidError, TooLargeError
from sealift.core.keys import PublicKey
from sealift.core.manifest import (
    Inventory,
    Unit,
    sign_manifest,
    sign_report,
    verify_manifest,
)
from sealift.core.reports import (
    EcuReport,
    Installed,
    Json,
    Manifest,
    Pending,
    Result,
    plain,
)
from tests.maker import Key, key

NOW = datetime(2030, 6, 1, 12, 0, 0, tzinfo=UTC)


class Signer:
    """A device key in memory."""

    def __init__(self, label: str) -> None:
        self.key: Key = key(label)

    def public(self) -> dict[str, object]:
        return self.key.public.to_json()

    def sign(self, data: bytes) -> bytes:
        return bytes.fromhex(self.key.sign(data))


PRIMARY, SECOND = Signer("main"), Signer("radio")
INVENTORY = Inventory(
    "dev-0001",
    "dev-0001-main",
    {
        "dev-0001-main": Unit("board-r1", PRIMARY.key.public),
        "dev-0001-radio": Unit("radio-r1", SECOND.key.public),
    },
)
RESULT = Result(
    attempt="a-1",
    verdict="failed",
    stage="trial",
    sha256=b"\x11" * 32,
    director_version=7,
    from_version="1.0.0",
    to_version="1.2.0",
    deployment="d-7",
    code="device.boot",
    detail="health check said no",
    started=NOW,
    ended=NOW,
    transferred=1234,
    method="delta",
    repaired=2,
)
MAIN = EcuReport(
    ecu_id="dev-0001-main",
    hardware_id="board-r1",
    installed=Installed("demo/rootfs-1.0.0.img", 10, b"\x22" * 32, "1.0.0", 3),
    time=NOW,
    counter=5,
    nonce=b"\x33" * 16,
    attack="metadata.rollback",
    detail="timestamp: version 3, 4 is trusted already",
    pending=Pending(b"\x44" * 32, 8, "staging", "d-8"),
    results=(RESULT,),
)
NO_ATTACK: dict[str, Any] = {"attack": None, "detail": ""}
RADIO = EcuReport("dev-0001-radio", "radio-r1", None, NOW, 1, b"\x55" * 16)
MANIFEST = Manifest(
    device_id="dev-0001",
    primary="dev-0001-main",
    counter=5,
    nonce=b"\x33" * 16,
    previous="66" * 32,
    gap=False,
    now=NOW,
    time_source="clock",
    versions={"director": {"root": 1, "targets": 7}, "image": {}},
    crypto="classic",
    key_store="file",
    agent="0.1.0",
    reports=(MAIN, RADIO),
    abilities=("delta/1", "cobblestone-256", "x25519"),
    kid="ab" * 8,
)


def blocks(*reports: EcuReport) -> dict[str, Json]:
    signers = {"dev-0001-main": PRIMARY, "dev-0001-radio": SECOND}
    return {r.ecu_id: sign_report(r, signers.get(r.ecu_id, PRIMARY)) for r in reports}


def made(manifest: Manifest = MANIFEST, *reports: EcuReport) -> bytes:
    return sign_manifest(manifest, blocks(*(reports or manifest.reports)), PRIMARY)


def refused(raw: bytes, **fields: str) -> None:
    with pytest.raises(ReportInvalidError) as caught:
        verify_manifest(raw, INVENTORY)
    assert fields.items() <= caught.value.fields.items()


def changed(change: Callable[[dict[str, Any]], object], *, resigned: bool) -> bytes:
    """The manifest with its payload changed, signed again or not."""
    found = json.loads(made())
    change(found["payload"])
    if resigned:
        data = canonical.encode(found["payload"])
        found["signature"]["hash"] = hashlib.sha256(data).hexdigest()
        found["signature"]["sig"] = PRIMARY.sign(data).hex()
    return json.dumps(found).encode()


def test_what_a_device_says_is_what_the_server_reads() -> None:
    assert verify_manifest(made(), INVENTORY) == MANIFEST


def test_the_bytes_are_json_and_the_same_each_time() -> None:
    assert made() == made()
    assert json.loads(made())["payload"]["_type"] == "device-manifest"


def test_M1_the_signature_names_key_method_hash_and_content() -> None:
    block = json.loads(made())["signature"]
    assert set(block) == {"keyid", "method", "hash_function", "hash", "sig"}
    for name, value in (
        ("keyid", "00" * 32),
        ("method", "ml-dsa-65/1"),
        ("hash_function", "md5"),
        ("hash", "00" * 32),
        ("sig", "00" * 64),
        ("sig", ""),
        ("sig", "0"),
        ("sig", 7),
    ):
        found = json.loads(made())
        found["signature"][name] = value
        refused(json.dumps(found).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"device_id": "dev-0002"},
        {"primary": "dev-0001-radio"},
    ],
)
def test_M2_D8_the_manifest_is_of_the_device_that_connected(change: Any) -> None:
    refused(made(replace(MANIFEST, **change)))


def test_M3_M9_every_ecu_reports_and_no_other() -> None:
    refused(made(MANIFEST, MAIN), ecu="dev-0001-radio", reason="missing")
    refused(made(MANIFEST, RADIO), ecu="dev-0001-main", reason="missing")
    extra = replace(RADIO, ecu_id="dev-0001-gps")
    refused(made(MANIFEST, MAIN, RADIO, extra), ecu="dev-0001-gps", reason="unknown")


def test_M4_each_ecu_signs_with_its_own_key() -> None:
    both = blocks(MAIN, RADIO)
    both["dev-0001-radio"] = sign_report(RADIO, PRIMARY)
    refused(sign_manifest(MANIFEST, both, PRIMARY))
    refused(sign_manifest(MANIFEST, blocks(MAIN, RADIO), SECOND))


def test_E10_swapped_and_spliced_reports_are_refused() -> None:
    both = blocks(MAIN, RADIO)
    swapped = dict(zip(both, reversed(both.values()), strict=True))
    refused(sign_manifest(MANIFEST, swapped, PRIMARY))
    refused(made(MANIFEST, replace(MAIN, counter=4), RADIO))
    refused(made(MANIFEST, replace(MAIN, nonce=b"\x00" * 16), RADIO))


def test_B4_the_hardware_is_that_of_the_inventory() -> None:
    refused(made(MANIFEST, MAIN, replace(RADIO, hardware_id="radio-r2")))


def test_a_report_never_passes_for_a_manifest() -> None:
    refused(canonical.encode(sign_report(MAIN, PRIMARY)))


def put(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(payload: dict[str, Any]) -> None:
        payload[name] = value

    return change


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    def change(payload: dict[str, Any]) -> None:
        del payload[name]

    return change


@pytest.mark.parametrize("resigned", [True, False])
@pytest.mark.parametrize("name", ["counter", "nonce", "now", "versions", "gap", "v"])
def test_every_member_is_needed_and_signed(name: str, resigned: bool) -> None:
    refused(changed(drop(name), resigned=resigned))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("v", True),
        ("_type", "ecu-report"),
        ("counter", 0),
        ("counter", 2**53),
        ("counter", "5"),
        ("nonce", "33"),
        ("prev", ""),
        ("prev", False),
        ("prev", "AB" * 32),
        ("gap", 0),
        ("now", "today"),
        ("time_source", "ntp"),
        ("crypto", ""),
        ("key_store", "drawer"),
        ("agent", "x" * 129),
        ("agent", "a\u001b[31m"),
        ("versions", {"other": {}}),
        ("versions", {"image": {"mirrors": 1}}),
        ("versions", {"image": {"root": 0}}),
        ("reports", []),
        ("device_id", "dev-0001\n"),
    ],
)
def test_E12_members_have_exactly_their_form(name: str, value: object) -> None:
    refused(changed(put(name, value), resigned=True))


def test_the_first_report_has_none_before_it() -> None:
    first = replace(MANIFEST, previous=None, gap=True)
    assert verify_manifest(made(first), INVENTORY) == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attack", "x" * 65),
        ("detail", "x" * 1001),
        ("detail", "a\nb"),
        ("installed", 7),
        ("installed", {"name": "x"}),
        ("pending", []),
        ("results", [{}] * 17),
        ("results", [7]),
        ("results", [RESULT.to_json() | {"verdict": "lucky"}]),
        ("results", [RESULT.to_json() | {"transferred": -1}]),
        ("results", [RESULT.to_json() | {"started": "x"}]),
        ("time", None),
        ("counter", 0),
    ],
)
def test_E12_members_of_a_report_have_exactly_their_form(
    name: str, value: object
) -> None:
    payload = MAIN.to_json() | {name: value}
    data = canonical.encode(payload)
    block: Json = {
        "payload": payload,
        "signature": {
            "keyid": PRIMARY.key.id,
            "method": "ed25519",
            "hash_function": "sha256",
            "hash": hashlib.sha256(data).hexdigest(),
            "sig": PRIMARY.sign(data).hex(),
        },
    }
    both = blocks(MAIN, RADIO) | {"dev-0001-main": block}
    refused(sign_manifest(MANIFEST, both, PRIMARY))


# ── caps ─────────────────────────────────────────────────────────────────────────────
def results(size: int) -> EcuReport:
    """A report whose canonical payload has exactly ``size`` bytes."""
    some = replace(
        MAIN,
        results=tuple(replace(RESULT, detail="x" * 900) for _ in range(12)),
        detail="",
    )
    room = size - len(canonical.encode(some.to_json()))
    fill: list[Result] = []
    for result in some.results:
        step = min(100, room)
        fill.append(replace(result, detail=result.detail + "y" * step))
        room -= step
    padded = replace(some, results=tuple(fill), detail="z" * room)
    assert len(canonical.encode(padded.to_json())) == size
    return padded


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385])
def test_a_report_has_at_most_16_kib(size: int) -> None:
    report = results(size)
    if size <= 16_384:
        found = verify_manifest(made(MANIFEST, report, RADIO), INVENTORY)
        assert found.reports == (report, RADIO)
        return
    with pytest.raises(LimitError):
        sign_report(report, PRIMARY)
    with pytest.MonkeyPatch.context() as patch:  # a device that does not obey
        patch.setattr("sealift.core.manifest.MAX_REPORT", 20_000)
        raw = made(MANIFEST, report, RADIO)
    refused(raw)


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_manifest_has_at_most_1_mib(size: int) -> None:
    padding = b" " * (size - len(made()))
    if size <= 1 << 20:
        assert verify_manifest(made() + padding, INVENTORY) == MANIFEST
    else:
        with pytest.raises(TooLargeError):
            verify_manifest(made() + padding, INVENTORY)


def test_a_device_does_not_sign_a_manifest_above_the_cap() -> None:
    many = {f"e{n}": blocks(MAIN)["dev-0001-main"] for n in range(1000)}
    with pytest.raises(LimitError):
        sign_manifest(MANIFEST, many, PRIMARY)


def test_a_device_has_at_most_256_ecus() -> None:
    many = {f"e{n}": blocks(RADIO)["dev-0001-radio"] for n in range(257)}
    refused(sign_manifest(MANIFEST, many, PRIMARY))


# ── texts are data (M14) ─────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "\x1b[31m",
        "\ud800",
        "x" * 2000,
        "e\u0301" * 600,
        "<script>",
        "{0}%s",
        "\u202e",
    ],
)
def test_M14_a_device_makes_texts_plain_before_it_signs_them(text: str) -> None:
    report = replace(MAIN, detail=text)
    found = verify_manifest(made(MANIFEST, report, RADIO), INVENTORY).reports[0]
    assert found.detail == plain(text)
    assert len(found.detail) <= 1000


@given(st.text())
def test_M14_what_is_plain_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(text).isprintable()


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    refused(raw)


def test_the_example_of_the_document_verifies() -> None:
    page = (Path(__file__).parents[3] / "docs/formats.md").read_text()
    text = page.partition("\n## Device manifest")[2]
    example = text.partition("```json\n")[2].partition("```")[0].encode()
    main = {"dev-0001-main": INVENTORY.units["dev-0001-main"]}
    found = verify_manifest(example, replace(INVENTORY, units=main))
    assert found == replace(MANIFEST, reports=(replace(MAIN, **NO_ATTACK),))


def test_a_report_of_the_first_agents_verifies_for_ever() -> None:
    """They say nothing of payloads: no abilities, no key, no method."""
    page = Path(__file__).parents[2] / "vectors/sealift/manifest-0.1.0.json"
    main = {"dev-0001-main": INVENTORY.units["dev-0001-main"]}
    found = verify_manifest(page.read_bytes(), replace(INVENTORY, units=main))
    assert (found.abilities, found.kid) == ((), None)
    assert found.reports[0].results == (replace(RESULT, method=None, repaired=None),)


@pytest.mark.parametrize(
    "changes",
    [
        {"abilities": ("a", "a")},
        {"abilities": ("",)},
        {"abilities": ("x" * 65,)},
        {"abilities": tuple(str(n) for n in range(33))},
        {"kid": "AB" * 8},
        {"kid": "ab"},
    ],
    ids=str,
)
def test_what_a_device_can_do_is_said_strictly(changes: dict[str, Any]) -> None:
    refused(made(replace(MANIFEST, **changes)))


@pytest.mark.parametrize("changes", [{"method": "magic"}, {"repaired": -1}], ids=str)
def test_how_an_image_came_is_said_strictly(changes: dict[str, Any]) -> None:
    result = replace(RESULT, **changes)
    refused(made(MANIFEST, replace(MAIN, results=(result,)), RADIO))


def test_an_ecdsa_key_signs_reports_too() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    public = PublicKey("ecdsa", "ecdsa-sha2-nistp256", pem.decode())

    class Token(Signer):
        def __init__(self) -> None: ...

        def public(self) -> dict[str, object]:
            return public.to_json()

        def sign(self, data: bytes) -> bytes:
            return private.sign(data, ec.ECDSA(hashes.SHA256()))

    alone = Inventory(
        "dev-0001", "dev-0001-main", {"dev-0001-main": Unit("board-r1", public)}
    )
    manifest = replace(MANIFEST, reports=(MAIN,))
    raw = sign_manifest(manifest, {MAIN.ecu_id: sign_report(MAIN, Token())}, Token())
    assert verify_manifest(raw, alone) == manifest
