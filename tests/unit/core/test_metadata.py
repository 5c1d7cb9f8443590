"""Role files are read strictly, and every cap holds at its very value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.core import canonical
from sealift.core.errors import (
    FormatError,
    LimitError,
    MalformedError,
    MixedError,
    SealiftError,
    UnsafeNameError,
)
from sealift.core.metadata import (
    DIRECTOR,
    IMAGE,
    IMAGE_SMALL,
    FileInfo,
    Limits,
    Profile,
    Reader,
    encoded,
    require_path,
    require_role_name,
)
from tests.maker import DAY, NOW, Body, Repository, key, signed, time

OWN, TUF = Reader(Profile.SEALIFT, IMAGE), Reader(Profile.TUF, IMAGE)
READ: dict[str, Callable[[Reader], Callable[[bytes], Any]]] = {
    "root": lambda r: r.root,
    "timestamp": lambda r: r.timestamp,
    "snapshot": lambda r: r.snapshot,
    "targets": lambda r: r.targets,
}
ROLES = list(READ)
SHA = "00" * 32


@pytest.fixture
def bodies() -> dict[str, Body]:
    return Repository().bodies


def read(role: str, body: Body, reader: Reader = OWN) -> Any:
    return READ[role](reader)(signed(body, [key("a")])).body


def refused(
    role: str,
    body: Body,
    error: type[SealiftError] = MalformedError,
    reader: Reader = OWN,
) -> None:
    with pytest.raises(error):
        read(role, body, reader)


# ── caps: below, at, above ───────────────────────────────────────────────────────────
def many_keys(count: int) -> Body:
    public = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": SHA}}
    return {f"k{number}": public for number in range(count)}


def root_with(body: Body, change: Callable[[Body], object]) -> tuple[str, Body]:
    change(body)
    return "root", body


def role_names(count: int, **more: object) -> Body:
    entry = {"keyids": [], "threshold": 1, "terminating": False, "paths": ["*"]}
    roles = [entry | {"name": f"r{number}"} | more for number in range(count)]
    return {"keys": {}, "roles": roles}


def delegations(bodies: dict[str, Body], block: Body) -> tuple[str, Body]:
    return "targets", bodies["targets"] | {"delegations": block}


def one_target(bodies: dict[str, Body], path: str, entry: Body) -> tuple[str, Body]:
    return "targets", bodies["targets"] | {"targets": {path: entry}}


def entry(hashes: int = 1) -> Body:
    listed = {"sha256": SHA, **{f"h{n}": SHA for n in range(1, hashes)}}
    return {"length": 1, "hashes": listed}


Make = Callable[[dict[str, Body], int], tuple[str, Body]]
COUNTED: dict[str, Make] = {
    "root_keys": lambda b, n: ("root", b["root"] | {"keys": many_keys(n)}),
    "delegation_keys": lambda b, n: delegations(
        b, role_names(1) | {"keys": many_keys(n)}
    ),
    "role_keys": lambda b, n: delegations(
        b, role_names(1, keyids=[f"k{i}" for i in range(n)])
    ),
    "key_id_characters": lambda b, n: delegations(b, role_names(1, keyids=["k" * n])),
    "delegations": lambda b, n: delegations(b, role_names(n)),
    "patterns": lambda b, n: delegations(b, role_names(1, paths=["*"] * n)),
    "hashes": lambda b, n: one_target(b, "x", entry(n)),
    "role_name_characters": lambda b, n: delegations(b, role_names(1, name="r" * n)),
    "target_path": lambda b, n: one_target(
        b, ("x" * 199 + "/") * (n // 200) + "y" * (n % 200), entry()
    ),
    "target_segments": lambda b, n: one_target(b, "/".join("x" * n), entry()),
    "target_segment_encoded": lambda b, n: one_target(b, "x" * n, entry()),
    "public_key_characters": lambda b, n: (
        "root",
        b["root"]
        | {
            "keys": {
                "k": {
                    "keytype": "ed25519",
                    "scheme": "ed25519",
                    "keyval": {"public": "0" * n},
                }
            }
        },
    ),
}


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("name", COUNTED)
def test_a_count_is_capped_at_its_value(
    bodies: dict[str, Body], name: str, profile: Profile
) -> None:
    cap, reader = getattr(IMAGE, name), Reader(profile, IMAGE)
    for number in (cap - 1, cap):
        read(*COUNTED[name](bodies, number), reader)
    refused(*COUNTED[name](bodies, cap + 1), LimitError, reader)


@pytest.mark.parametrize("role", ROLES)
def test_bytes_of_a_file_are_capped_at_their_value(
    bodies: dict[str, Body], role: str
) -> None:
    raw = signed(bodies[role], [])
    for cap in (len(raw) + 1, len(raw)):
        READ[role](Reader(Profile.SEALIFT, replace(IMAGE, **{f"{role}_bytes": cap})))(
            raw
        )
    limits = replace(IMAGE, **{f"{role}_bytes": len(raw) - 1})
    with pytest.raises(LimitError):
        READ[role](Reader(Profile.SEALIFT, limits))(raw)


@pytest.mark.parametrize("count", [63, 64, 65])
def test_signatures_are_capped_before_any_is_checked(
    bodies: dict[str, Body], count: int
) -> None:
    signatures = [{"keyid": f"k{n}", "sig": "00"} for n in range(count)]
    raw = json.dumps({"signed": bodies["targets"], "signatures": signatures}).encode()
    if count <= 64:
        assert len(OWN.targets(raw).signatures) == count
    else:
        with pytest.raises(LimitError):
            OWN.targets(raw)


@pytest.mark.parametrize("length", [16_383, 16_384, 16_385])
def test_the_text_of_a_signature_is_capped(
    bodies: dict[str, Body], length: int
) -> None:
    signatures = [{"keyid": "k", "sig": "0" * length}]
    raw = json.dumps({"signed": bodies["targets"], "signatures": signatures}).encode()
    if length <= 16_384:
        assert OWN.targets(raw).signatures["k"]
    else:
        with pytest.raises(LimitError):
            OWN.targets(raw)


@pytest.mark.parametrize(("length", "ok"), [(66, True), (67, False)])
def test_a_role_name_is_capped_when_encoded(length: int, ok: bool) -> None:
    limits = replace(IMAGE, role_name_encoded=66 * 3)
    if ok:
        assert require_role_name("/" * length, limits)
    else:
        with pytest.raises(LimitError):
            require_role_name("/" * length, limits)


def test_a_threshold_goes_from_1_to_32(bodies: dict[str, Body]) -> None:
    for threshold in (1, 31, 32):
        read(*delegations(bodies, role_names(1, threshold=threshold)))
    for threshold in (0, 33):
        refused(*delegations(bodies, role_names(1, threshold=threshold)), LimitError)


def test_a_version_goes_from_1_to_2_to_the_53(bodies: dict[str, Body]) -> None:
    for version in (1, 2**53 - 2, 2**53 - 1):
        assert (
            read("targets", bodies["targets"] | {"version": version}).version == version
        )
    for version in (0, -1, 2**53, 2**63):
        refused("targets", bodies["targets"] | {"version": version}, LimitError)


SHARED = {
    "check_bytes",  # core.trust
    "root_rotations",
    "roles_visited",  # core.delegation
    "signatures",
    "signature_characters",
    "role_name_encoded",
}


def test_every_cap_has_its_test() -> None:
    named = {f.name for f in dataclass_fields(Limits)}
    assert named == COUNTED.keys() | {f"{role}_bytes" for role in ROLES} | SHARED


def test_the_caps_are_those_of_the_design() -> None:
    assert (IMAGE.root_bytes, IMAGE.timestamp_bytes) == (262_144, 32_768)
    assert (IMAGE.snapshot_bytes, IMAGE.targets_bytes) == (2_000_000, 5_000_000)
    assert (DIRECTOR.snapshot_bytes, DIRECTOR.targets_bytes) == (65_536, 262_144)
    assert IMAGE_SMALL.targets_bytes == 1_000_000
    assert (IMAGE.check_bytes, IMAGE.root_rotations, IMAGE.roles_visited) == (
        32 << 20,
        256,
        32,
    )


# ── the file around the role ─────────────────────────────────────────────────────────
@pytest.mark.parametrize("role", ROLES)
def test_a_file_of_another_type_is_refused(bodies: dict[str, Body], role: str) -> None:
    for other in ROLES:
        if other != role:
            with pytest.raises(MalformedError):
                READ[role](OWN)(signed(bodies[other], []))


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{}",
        b'{"signed": {}, "signatures": []}',
        b'{"signed": [], "signatures": []}',
        b'{"signatures": []}',
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_what_is_no_role_file_is_refused(role: str, raw: bytes) -> None:
    for reader in (OWN, TUF):
        with pytest.raises(MalformedError):
            READ[role](reader)(raw)


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        {},
        ["x"],
        [{}],
        [{"keyid": "a"}],
        [{"keyid": "a", "sig": None}],
        [{"keyid": 1, "sig": "00"}],
        [{"keyid": "", "sig": "00"}],
        [{"keyid": "a", "sig": "00"}, {"keyid": "a", "sig": "01"}],
    ],
)
def test_A01_B01_signatures_are_a_list_of_distinct_key_ids(
    bodies: dict[str, Body], signatures: object
) -> None:
    raw = json.dumps({"signed": bodies["root"], "signatures": signatures}).encode()
    with pytest.raises(MalformedError):
        OWN.root(raw)


def test_A25_members_outside_signed_have_no_effect(bodies: dict[str, Body]) -> None:
    file = json.loads(signed(bodies["targets"], [key("a")]))
    plain = OWN.targets(json.dumps(file).encode())
    file |= {"version": 99, "targets": {"x": 1}, "signed_by": ["root"], "custom": {}}
    assert OWN.targets(json.dumps(file).encode()) == plain


def test_unknown_members_stay_in_the_signed_bytes(bodies: dict[str, Body]) -> None:
    body = bodies["targets"] | {"x-other": {"a": [1, None]}}
    assert OWN.targets(signed(body, [])).signed == canonical.encode(body)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("profile", Profile)
def test_what_the_maker_writes_is_read(
    bodies: dict[str, Body], role: str, profile: Profile
) -> None:
    assert read(role, bodies[role], Reader(profile, IMAGE)).version == 1


# ── members of every role ────────────────────────────────────────────────────────────
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", "1"),
        ("version", 1.0),
        ("version", True),
        ("version", None),
        ("spec_version", "2.0.0"),
        ("spec_version", "1"),
        ("spec_version", "1.0.0.0"),
        ("spec_version", "1.x"),
        ("spec_version", "1.0.34\n"),
        ("spec_version", [1]),
        ("expires", "2030-06-01"),
        ("expires", "2030-06-01T12:00:00"),
        ("expires", "2030-06-01T12:00:00+00:00"),
        ("expires", "2030-06-01T12:00:00.5Z"),
        ("expires", "2030-6-1T12:00:00Z"),
        ("expires", "2030-06-01t12:00:00z"),
        ("expires", "2030-13-01T12:00:00Z"),
        ("expires", "2030-02-30T12:00:00Z"),
        ("expires", "0000-01-01T00:00:00Z"),
        ("expires", "२०३०-06-01T12:00:00Z"),
        ("expires", [1900000000]),
    ],
)
def test_A24_common_members_have_exactly_their_form(
    bodies: dict[str, Body], role: str, member: str, value: object
) -> None:
    body = bodies[role] | {member: value}
    raw = json.dumps({"signed": body, "signatures": []}).encode()
    for reader in (OWN, TUF):
        with pytest.raises(MalformedError):
            READ[role](reader)(raw)
    del body[member]
    refused(role, body, MalformedError, TUF)


@pytest.mark.parametrize(
    ("issued", "expires", "ok"),
    [
        (NOW, NOW + DAY, True),
        (NOW, NOW + 400 * DAY, True),
        (NOW - DAY, NOW + 400 * DAY, False),
        (NOW, NOW, False),
        (NOW + DAY, NOW, False),
    ],
)
def test_A31_issued_lies_before_expires_by_at_most_400_days(
    bodies: dict[str, Body], issued: Any, expires: Any, ok: bool
) -> None:
    body = bodies["timestamp"] | {"issued": time(issued), "expires": time(expires)}
    if ok:
        assert read("timestamp", body).issued == issued
    else:
        refused("timestamp", body)
    assert read("timestamp", body, TUF).issued is None


# ── Root ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("roles", "own", "tuf"),
    [
        ({}, True, True),
        ({"offline-snapshot": {}, "offline-targets": {}}, True, False),
        ({"mirrors": {}}, False, False),
    ],
)
def test_C4_a_root_has_the_four_roles(
    bodies: dict[str, Body], roles: Body, own: bool, tuf: bool
) -> None:
    extra = {name: {"keyids": [], "threshold": 1} for name in roles}
    body = bodies["root"] | {"roles": bodies["root"]["roles"] | extra}
    for reader, ok in ((OWN, own), (TUF, tuf)):
        if ok:
            assert read("root", body, reader).roles.keys() >= set(ROLES)
        else:
            refused("root", body, MalformedError, reader)
    for role in ROLES:
        fewer = {n: r for n, r in bodies["root"]["roles"].items() if n != role}
        refused("root", bodies["root"] | {"roles": fewer}, MalformedError, TUF)


@pytest.mark.parametrize(
    ("member", "value", "error"),
    [
        ("threshold", "1", MalformedError),
        ("threshold", True, MalformedError),
        ("threshold", None, MalformedError),
        ("keyids", "x", MalformedError),
        ("keyids", ["a", "a"], MalformedError),
        ("keyids", [1], MalformedError),
        ("min_per_family", 0, LimitError),
        ("min_per_family", "1", MalformedError),
        ("min_per_family", 33, LimitError),
    ],
)
def test_a_role_says_who_signs(
    bodies: dict[str, Body], member: str, value: object, error: type[SealiftError]
) -> None:
    bodies["root"]["roles"]["snapshot"][member] = value
    refused("root", bodies["root"], error)


def test_min_per_family_is_ours_alone(bodies: dict[str, Body]) -> None:
    bodies["root"]["roles"]["snapshot"]["min_per_family"] = 2
    assert read("root", bodies["root"]).roles["snapshot"].min_per_family == 2
    assert read("root", bodies["root"], TUF).roles["snapshot"].min_per_family == 0


def test_ours_are_consistent_snapshots(bodies: dict[str, Body]) -> None:
    bodies["root"]["consistent_snapshot"] = False
    refused("root", bodies["root"])
    assert not read("root", bodies["root"], TUF).consistent_snapshot


# ── listings ─────────────────────────────────────────────────────────────────────────
LISTED: list[tuple[Body, type[SealiftError]]] = [
    ({"version": 0}, LimitError),
    ({"version": "1"}, MalformedError),
    ({"length": -1}, LimitError),
    ({"length": "1"}, MalformedError),
    ({"hashes": {}}, MalformedError),
    ({"hashes": []}, MalformedError),
    ({"hashes": {"sha256": SHA[:-2]}}, MalformedError),
    ({"hashes": {"sha256": "AB" * 32}}, MalformedError),
    ({"hashes": {"sha256": " " + SHA}}, MalformedError),
    ({"hashes": {"sha256": 7}}, MalformedError),
    ({"hashes": {"sha256": SHA, "sha512": SHA}}, MalformedError),
    ({"hashes": {"sha256": SHA, "x": 1}}, MalformedError),
]


@pytest.mark.parametrize(("change", "error"), LISTED)
@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_C12_C10_C11_a_listing_is_strict(
    bodies: dict[str, Body], role: str, change: Body, error: type[SealiftError]
) -> None:
    name = "snapshot.json" if role == "timestamp" else "targets.json"
    bodies[role]["meta"][name] |= change
    for reader in (OWN, TUF):
        raw = json.dumps({"signed": bodies[role], "signatures": []}).encode()
        with pytest.raises(error):
            READ[role](reader)(raw)


@pytest.mark.parametrize("missing", ["length", "hashes"])
def test_i_ours_list_length_and_sha256(bodies: dict[str, Body], missing: str) -> None:
    del bodies["timestamp"]["meta"]["snapshot.json"][missing]
    refused("timestamp", bodies["timestamp"])
    assert read("timestamp", bodies["timestamp"], TUF).snapshot.version == 1
    only512: Body = {"hashes": {"sha512": "00" * 64}, "length": 1, "version": 1}
    bodies["timestamp"]["meta"]["snapshot.json"] = only512
    refused("timestamp", bodies["timestamp"])
    assert read("timestamp", bodies["timestamp"], TUF).snapshot.hashes


def test_a_timestamp_lists_a_snapshot(bodies: dict[str, Body]) -> None:
    bodies["timestamp"]["meta"] = {}
    refused("timestamp", bodies["timestamp"], MalformedError, TUF)


def test_names_in_our_snapshots_end_in_json(bodies: dict[str, Body]) -> None:
    bodies["snapshot"]["meta"]["x"] = {
        "version": 1,
        "length": 1,
        "hashes": {"sha256": SHA},
    }
    refused("snapshot", bodies["snapshot"])
    assert "x" in read("snapshot", bodies["snapshot"], TUF).files


@pytest.mark.parametrize(
    ("length", "hashes", "ok"),
    [
        (None, None, True),
        (3, None, True),
        (2, None, False),
        (3, {"sha256": "good"}, True),
        (3, {"sha512": "good"}, True),
        (3, {"sha256": "good", "sha512": "good"}, True),
        (3, {"sha256": "good", "sha512": "00" * 64}, False),
        (3, {"sha256": "00" * 32}, False),
        (3, {"sha256": "good", "md5": "00"}, False),
        (3, {"blake2b-256": "00"}, False),
    ],
)
def test_S2_G2_every_listed_fact_must_hold(
    length: int | None, hashes: dict[str, str] | None, ok: bool
) -> None:
    import hashlib

    listed = hashes and {
        name: hashlib.new(name, b"abc").hexdigest() if value == "good" else value
        for name, value in hashes.items()
    }
    info = FileInfo(1, length, listed)
    if ok:
        info.require(b"abc", "targets")
    else:
        with pytest.raises(MixedError):
            info.require(b"abc", "targets")


# ── Targets ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("change", [c for c in LISTED if "version" not in c[0]])
def test_C5_C12_an_entry_is_strict(
    bodies: dict[str, Body], change: tuple[Body, type[SealiftError]]
) -> None:
    role, body = one_target(bodies, "x", entry() | change[0])
    for reader in (OWN, TUF):
        with pytest.raises(change[1]):
            READ[role](reader)(json.dumps({"signed": body, "signatures": []}).encode())


@pytest.mark.parametrize("name", ["length", "hashes"])
def test_C5_an_entry_has_length_and_hashes(bodies: dict[str, Body], name: str) -> None:
    without = {n: v for n, v in entry().items() if n != name}
    refused(*one_target(bodies, "x", without), MalformedError, TUF)


def test_a_foreign_custom_member_is_not_read(bodies: dict[str, Body]) -> None:
    odd = entry() | {"custom": {"must_match": 7}}
    assert read(*one_target(bodies, "x", odd), TUF).targets["x"].custom is None
    refused(*one_target(bodies, "x", odd))
    refused(*one_target(bodies, "x", entry() | {"custom": []}))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/x",
        "x/",
        "a//b",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/.",
        "./a",
        "a/..",
        "a\nb",
        "a\x7f",
        "a\x85b",
    ],
)
def test_A26_our_target_paths_are_plain_relative_paths(path: str) -> None:
    with pytest.raises(UnsafeNameError):
        require_path(path, IMAGE, own=True)
    assert require_path(path, IMAGE, own=False) == path


@pytest.mark.parametrize("path", ["a\0b", "\0"])
def test_A26_no_target_path_holds_a_nul(path: str) -> None:
    for own in (True, False):
        with pytest.raises(UnsafeNameError):
            require_path(path, IMAGE, own=own)


@pytest.mark.parametrize("path", ["x", "a/b.img", "...", "a/..b", "%2e%2e/x", "ü/日"])
def test_what_is_a_plain_path_is_accepted(path: str) -> None:
    assert require_path(path, IMAGE, own=True) == path


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": ""}, MalformedError),
        ({"name": None}, MalformedError),
        ({"name": "targets"}, MalformedError),
        ({"name": "a\x00"}, MalformedError),
        ({"name": "a\n"}, MalformedError),
        ({"terminating": "yes"}, MalformedError),
        ({"terminating": 1}, MalformedError),
        ({"paths": "x"}, MalformedError),
        ({"paths": [1]}, MalformedError),
        ({"paths": ["x" * 1025]}, LimitError),
        ({"path_hash_prefixes": ["00"]}, MalformedError),
        ({"keyids": None}, MalformedError),
        ({"min_roles_in_agreement": 1}, MalformedError),
    ],
)
def test_C9_C14_a_delegation_is_strict(
    bodies: dict[str, Body], change: Body, error: type[SealiftError]
) -> None:
    refused(*delegations(bodies, role_names(1, **change)), error, TUF)


@pytest.mark.parametrize(
    "block",
    [
        None,
        [],
        {},
        {"keys": {}},
        {"roles": []},
        {"keys": {}, "succinct_roles": {"bit_length": 4, "name_prefix": "b"}},
        {"keys": {}, "roles": [], "succinct_roles": {}},
        {"keys": {}, "roles": [7]},
        {"keys": {"k": 7}, "roles": []},
    ],
)
def test_a_block_of_delegations_is_strict(bodies: dict[str, Body], block: Any) -> None:
    refused(*delegations(bodies, block), MalformedError, TUF)


def test_a_role_is_delegated_once_in_a_file(bodies: dict[str, Body]) -> None:
    refused(*delegations(bodies, role_names(2, name="same")), MalformedError, TUF)


def test_hardware_ids_of_a_delegation_are_ours_alone(bodies: dict[str, Body]) -> None:
    block = delegations(bodies, role_names(1, hardware_ids=["a"]))
    assert read(*block).delegations[0].hardware_ids == ("a",)
    assert read(*block, TUF).delegations[0].hardware_ids is None


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("a-b._~9Z", "a-b._~9Z"),
        ("../x", "..%2Fx"),
        ("?#%", "%3F%23%25"),
        ("ü", "%C3%BC"),
    ],
)
def test_A26_a_name_becomes_one_component_of_a_url(name: str, component: str) -> None:
    assert encoded(name) == component


# ── fuzzing ──────────────────────────────────────────────────────────────────────────
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**60)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict):
        found: list[tuple[Any, Any]] = [(value, name) for name in value]
    elif isinstance(value, list):
        found = [(value, number) for number in range(len(value))]
    else:
        return []
    return found + [place for _, name in found for place in places(value[name])]


@given(st.data())
def test_a_file_with_junk_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Nothing but our format errors and the name error leaves the reader."""
    repository = Repository()
    repository.add_target(
        "a/b",
        must_match={"hardware_ids": ["x"], "release_counter": 1},
        payload={"segment_size": 1 << 20, "segment_root": SHA},
        release={"version": "1"},
        ecus={
            "e": {
                "hardware_id": "x",
                "payload": {
                    "full": {
                        "name": "n",
                        "length": 2,
                        "sha256": SHA,
                        "head_length": 1,
                        "head_sha256": SHA,
                    }
                },
            }
        },
    )
    repository.delegate("targets", "a", hardware_ids=["x"])
    role = data.draw(st.sampled_from(ROLES))
    file = {
        "signed": repository.bodies[role],
        "signatures": [{"keyid": "a", "sig": "00"}],
    }
    container, name = data.draw(st.sampled_from(places(file)))
    if data.draw(st.booleans()):
        container[name] = data.draw(junk)
    else:
        del container[name]
    raw = json.dumps(file).encode()
    for reader in (OWN, TUF):
        try:
            READ[role](reader)(raw)
        except (FormatError, UnsafeNameError):
            continue
