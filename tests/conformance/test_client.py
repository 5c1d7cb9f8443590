"""The conformance client against repositories that python-tuf made, over real http."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, Targets

from tests.conformance.client import main
from tests.conformance.simulator import PAST, SAFE, TOP, Simulator, served

CLIENT = Path(__file__).with_name("client.py")


class Runner:
    """Runs the client on directories of its own."""

    def __init__(self, directory: Path, repository: Simulator, url: str) -> None:
        self.repository, self.url = repository, url
        self.metadata, self.targets = directory / "metadata", directory / "targets"
        self.anchor = directory / "root.json"
        self.anchor.write_bytes(repository.anchor)
        self.metadata.mkdir()
        self.targets.mkdir()
        assert self.run("init", str(self.anchor)) == 0

    def run(self, *arguments: str) -> int:
        """Run the client in this process: its ``main`` with its own command line."""
        self.repository.asked.clear()
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            status = main(["--metadata-dir", str(self.metadata), *arguments])
        self.said = said.getvalue()
        return status

    def run_program(self, *arguments: str) -> int:
        """Run the client as the public suite does: as a program."""
        self.repository.asked.clear()
        command = [str(CLIENT), "--metadata-dir", str(self.metadata), *arguments]
        done = subprocess.run(
            [sys.executable, *command], check=False, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.said = done.stderr
        return done.returncode

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.url}/metadata", "refresh")

    def download(self, *names: str) -> int:
        options = [option for name in names for option in ("--target-name", name)]
        return self.run(
            *("--metadata-url", f"{self.url}/metadata/", *options),
            *("--target-dir", str(self.targets)),
            *("--target-base-url", f"{self.url}/targets/", "download"),
        )

    def version(self, role: str) -> int:
        kept = Metadata[Any].from_file(str(self.metadata / f"{role}.json"))
        return int(kept.signed.version)

    def roles(self) -> list[str]:
        return sorted(f.name.removesuffix(".json") for f in self.metadata.iterdir())

    def downloaded(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.targets.iterdir())]


@pytest.fixture
def repository() -> Simulator:
    return Simulator()


@pytest.fixture
def client(tmp_path: Path, repository: Simulator) -> Iterator[Runner]:
    with served(repository) as url:
        yield Runner(tmp_path, repository, url)


# ── the interface ────────────────────────────────────────────────────────────────────
def test_the_client_is_executable_and_its_path_has_no_space() -> None:
    assert CLIENT.stat().st_mode & 0o111
    assert CLIENT.read_text().startswith("#!/usr/bin/env python3\n")


def test_first_refresh_asks_each_file_once_in_order(client: Runner) -> None:
    assert client.refresh() == 0
    assert client.repository.asked == [
        ("root", 2),
        ("timestamp", None),
        ("snapshot", 1),
        ("targets", 1),
    ]
    assert client.roles() == sorted(TOP)
    for role in TOP:
        version = None if role == "timestamp" else 1
        kept = (client.metadata / f"{role}.json").read_bytes()
        assert kept == client.repository.files[role, version]


def test_second_refresh_asks_only_what_may_have_changed(client: Runner) -> None:
    client.refresh()
    assert client.refresh() == 0
    assert client.repository.asked == [("root", 2), ("timestamp", None)]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["refresh"],
        ["dance"],
        ["--metadata-url", "x", "download"],
        ["init"],
        ["init", "/does/not/exist"],
        ["--metadata-url", "http://127.0.0.1:9/", "refresh"],
    ],
)
def test_every_failure_is_exit_status_1(client: Runner, arguments: list[str]) -> None:
    assert client.run_program(*arguments) == 1
    assert client.said


def test_the_program_does_what_main_does(client: Runner) -> None:
    assert client.run_program("init", str(client.anchor)) == 0
    url = ("--metadata-url", f"{client.url}/metadata")
    assert client.run_program(*url, "refresh") == 0
    assert client.roles() == sorted(TOP)
    client.repository.files["timestamp", None] = b"{}"
    assert client.run_program(*url, "refresh") == 1


@pytest.mark.parametrize("damage", ["version", "signature", "json"])
def test_a_bad_anchor_fails_before_any_request(client: Runner, damage: str) -> None:
    root = json.loads(client.repository.anchor)
    if damage == "version":
        del root["signed"]["version"]
    if damage == "signature":
        root["signatures"][0]["sig"] = "00" * 64
    raw = b"{" if damage == "json" else json.dumps(root).encode()
    client.anchor.write_bytes(raw)
    client.run("init", str(client.anchor))
    assert client.refresh() == 1
    assert client.repository.asked == []


def test_without_init_refresh_fails(client: Runner) -> None:
    (client.metadata / "root.json").unlink()
    assert client.refresh() == 1


# ── Root ─────────────────────────────────────────────────────────────────────────────
def test_25_rotations_are_followed(client: Runner) -> None:
    old = client.repository.signers["root"]
    for _ in range(25):
        previous = old[-1]
        client.repository.rotate("root")
        old = client.repository.signers["root"] = [previous, *old[-1:]]
        client.repository.publish("root")
    assert client.refresh() == 0
    assert client.version("root") == 26


ROTATIONS = [
    # keys, threshold, signatures of Root 1; the same of Root 2; whether it is accepted
    ("one key for another", ([1], 1, [1]), ([2], 1, [2, 1]), True),
    ("not signed by the old", ([1], 1, [1]), ([2], 1, [2, 3]), False),
    ("not signed by the new", ([1], 1, [1]), ([2], 1, [1, 3]), False),
    ("strangers sign as well", ([1], 1, [3, 1]), ([2], 1, [3, 2, 1]), True),
    (
        "three of five",
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
        ([0, 1, 3, 4, 5], 3, [0, 4, 1]),
        True,
    ),
    (
        "too few new",
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
        ([0, 1, 3, 4, 5], 3, [0, 2, 4]),
        False,
    ),
    (
        "too few old",
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
        ([0, 1, 3, 4, 5], 3, [0, 4, 5]),
        False,
    ),
    ("threshold up", ([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2]), True),
    ("threshold up, one signs", ([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2]), False),
    ("threshold down", ([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), True),
    ("threshold down, one signs", ([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1]), False),
]


@pytest.mark.parametrize(("name", "first", "second", "ok"), ROTATIONS)
def test_root_rotations(
    tmp_path: Path, name: str, first: Any, second: Any, ok: bool
) -> None:
    signers = [CryptoSigner.generate_ed25519() for _ in range(6)]
    repository = Simulator()
    root = repository.bodies["root"]
    root.version = 0
    for keys, threshold, signs in (first, second):
        root.roles["root"].keyids.clear()
        root.roles["root"].threshold = threshold
        for number in keys:
            root.add_key(signers[number].public_key, "root")
        repository.signers["root"] = [signers[number] for number in signs]
        repository.publish("root")
    with served(repository) as url:
        client = Runner(tmp_path, repository, url)
        assert client.refresh() == (0 if ok else 1)
    assert client.version("root") == (2 if ok else 1)


def test_an_expired_final_root_is_stored_and_refused(client: Runner) -> None:
    client.refresh()
    client.repository.bodies["root"].expires = PAST
    client.repository.publish("root")
    client.repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.version("root") == 2
    assert client.version("timestamp") == 1
    client.repository.bodies["root"].expires = SAFE
    client.repository.publish("root")
    assert client.refresh() == 0


@pytest.mark.parametrize("version", [1, 3])
def test_a_root_of_another_version_than_its_url_is_refused(
    client: Runner, version: int
) -> None:
    client.repository.bodies["root"].version = version - 1
    client.repository.publish("root")
    client.repository.files["root", 2] = client.repository.files["root", version]
    assert client.refresh() == 1
    assert client.version("root") == 1


def test_unknown_members_in_a_root_are_signed_content(client: Runner) -> None:
    root = client.repository.bodies["root"]
    root.unrecognized_fields["x"] = "value"
    root.keys[root.roles["root"].keyids[0]].unrecognized_fields["y"] = {"a": 1}
    root.roles["root"].unrecognized_fields["z"] = [True, None]
    client.repository.publish("root")
    assert client.refresh() == 0
    assert client.version("root") == 2


# ── rollback and recovery ────────────────────────────────────────────────────────────
@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_rollback_of_each_role_is_refused(
    client: Runner, role: str, hashes: bool
) -> None:
    client.repository.hashes = hashes
    client.repository.release()
    client.repository.release()
    assert client.refresh() == 0
    client.repository.bodies[role].version = 1
    roles = ["targets", "snapshot", "timestamp"]
    client.repository.publish(*roles[roles.index(role) :])
    kept = {name: client.version(name) for name in roles}
    assert client.refresh() == 1
    assert {name: client.version(name) for name in roles} == kept | (
        {"timestamp": client.repository.bodies["timestamp"].version}
        if role == "targets"
        else {}
    )


def test_a_vanished_role_is_refused(client: Runner) -> None:
    client.repository.delegate("targets", "a")
    client.repository.release()
    assert client.refresh() == 0
    del client.repository.bodies["snapshot"].meta["a.json"]
    client.repository.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.version("snapshot") == 2


@pytest.mark.parametrize(
    ("role", "rotated"),
    [
        ("timestamp", ["timestamp"]),
        ("snapshot", ["snapshot", "timestamp"]),
        ("targets", ["snapshot"]),
    ],
)
def test_fast_forward_is_recovered_by_rotation(
    client: Runner, role: str, rotated: list[str]
) -> None:
    client.repository.bodies[role].version = 99_999
    client.repository.release()
    assert client.refresh() == 0
    assert client.version(role) == 100_000
    for name in rotated:
        client.repository.rotate(name)
    client.repository.publish("root")
    client.repository.bodies[role].version = 0
    client.repository.release()
    assert client.refresh() == 0
    assert client.version(role) == 1


# ── timestamps ───────────────────────────────────────────────────────────────────────
def test_another_timestamp_of_the_same_version_is_not_taken(client: Runner) -> None:
    client.refresh()
    kept = (client.metadata / "timestamp.json").read_bytes()
    client.repository.bodies["timestamp"].snapshot_meta.version = 100
    client.repository.publish("timestamp", bump=False)
    assert client.refresh() == 0
    assert client.repository.asked == [("root", 2), ("timestamp", None)]
    assert (client.metadata / "timestamp.json").read_bytes() == kept


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_expired_file_is_refused_and_the_old_one_stays(
    client: Runner, role: str
) -> None:
    client.refresh()
    client.repository.bodies[role].expires = PAST
    client.repository.release()
    assert client.refresh() == 1
    assert client.version(role) == 1
    later = {"snapshot": ["timestamp"], "targets": ["timestamp", "snapshot"]}
    for name in later.get(role, []):
        assert client.version(name) == 2


def test_a_timestamp_is_stored_though_its_snapshot_fails(client: Runner) -> None:
    del client.repository.files["snapshot", 1]
    assert client.refresh() == 1
    assert client.roles() == ["root", "timestamp"]
    assert client.repository.asked[-1] == ("snapshot", 1)


# ── files that are not what their parent lists ───────────────────────────────────────
@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_url_with_another_version_inside_is_refused(
    client: Runner, role: str
) -> None:
    body = client.repository.bodies[role]
    body.version = 7
    client.repository.files[role, 1] = client.repository.sign(role)
    assert client.refresh() == 1
    assert role not in client.roles()


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_hash_that_differs_is_refused(tmp_path: Path, role: str) -> None:
    repository = Simulator(hashes=True)
    repository.files[role, 1] += b" "
    with served(repository) as url:
        client = Runner(tmp_path, repository, url)
        assert client.refresh() == 1
    assert role not in client.roles()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_file_of_another_type_is_refused(client: Runner, role: str) -> None:
    other = "snapshot" if role != "snapshot" else "targets"
    metadata: Metadata[Any] = Metadata(client.repository.bodies[other])
    metadata.sign(client.repository.signers[role][0])
    client.repository.files[role, None if role == "timestamp" else 1] = (
        metadata.to_bytes()
    )
    assert client.refresh() == 1
    assert role not in client.roles()


# ── keys ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key_signs(client: Runner, kind: str) -> None:
    repository = client.repository
    generate = {
        "ed25519": CryptoSigner.generate_ed25519,
        "ecdsa": CryptoSigner.generate_ecdsa,
        "rsa": CryptoSigner.generate_rsa,
    }[kind]
    for role in ("snapshot", "timestamp"):
        repository.bodies["root"].roles[role].keyids.clear()
        repository.signers[role].clear()
        repository.add_key(role, generate())
    repository.publish("root")
    repository.release()
    assert client.refresh() == 0


@pytest.mark.parametrize("field", ["keyids", "signatures"])
def test_repeated_ids_are_refused(client: Runner, field: str) -> None:
    repository = client.repository
    if field == "keyids":
        found = json.loads(repository.anchor)
        found["signed"]["version"] = 2
        found["signed"]["roles"]["snapshot"]["keyids"] *= 2
        repository.files["root", 2] = resigned(found, repository.signers["root"][0])
    else:
        found = json.loads(repository.files["timestamp", None])
        found["signatures"] *= 2
        repository.files["timestamp", None] = json.dumps(found).encode()
    assert client.refresh() == 1


def resigned(found: Any, signer: CryptoSigner) -> bytes:
    from securesystemslib.formats import encode_canonical

    signature = signer.sign((encode_canonical(found["signed"]) or "").encode())
    found["signatures"] = [signature.to_dict()]
    return json.dumps(found).encode()


@pytest.mark.parametrize("sig", ["", "00", "no hex", "00" * 64])
def test_a_bad_signature_beside_a_good_one_is_tolerated(
    client: Runner, sig: str
) -> None:
    repository = client.repository
    repository.add_key("timestamp", CryptoSigner.generate_ed25519())
    repository.publish("root")
    found = json.loads(repository.files["timestamp", None])
    found["signatures"].insert(
        0, {"keyid": repository.signers["timestamp"][1].public_key.keyid, "sig": sig}
    )
    found["signatures"].append({"keyid": "unknown", "sig": sig})
    repository.files["timestamp", None] = json.dumps(found).encode()
    assert client.refresh() == 0


def test_a_threshold_above_the_number_of_keys_refuses_the_role_not_the_root(
    client: Runner,
) -> None:
    client.refresh()
    client.repository.bodies["root"].roles["snapshot"].threshold = 2
    client.repository.publish("root")
    client.repository.release()
    assert client.refresh() == 1
    assert client.version("root") == 2
    assert client.version("snapshot") == 1


def test_one_key_under_two_ids_counts_once(client: Runner) -> None:
    repository = client.repository
    found = json.loads(repository.anchor)["signed"]
    found["version"] = 2
    (key_id,) = found["roles"]["timestamp"]["keyids"]
    found["keys"]["twin"] = found["keys"][key_id]
    found["roles"]["timestamp"] |= {"keyids": [key_id, "twin"], "threshold": 2}
    signer = repository.signers["root"][0]
    repository.files["root", 2] = resigned({"signed": found}, signer)
    stamp = json.loads(repository.files["timestamp", None])
    stamp["signatures"].append(stamp["signatures"][0] | {"keyid": "twin"})
    repository.files["timestamp", None] = json.dumps(stamp).encode()
    assert client.refresh() == 1


# ── delegations ──────────────────────────────────────────────────────────────────────
GRAPHS: dict[str, tuple[list[tuple[str, str, dict[str, Any]]], list[str]]] = {
    "one": ([("targets", "A", {})], ["A"]),
    "siblings": ([("targets", "A", {}), ("targets", "B", {})], ["A", "B"]),
    "pre-order": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {}), ("C", "D", {})],
        ["A", "C", "D", "B"],
    ),
    "terminating": (
        [
            ("targets", "A", {}),
            ("targets", "B", {}),
            ("A", "C", {"terminating": True}),
            ("A", "D", {}),
            ("C", "E", {}),
        ],
        ["A", "C", "E"],
    ),
    "patterns": (
        [("targets", "A", {"paths": ["*.py"]}), ("targets", "B", {}), ("A", "C", {})],
        ["B"],
    ),
    "cycle": (
        [("targets", "A", {}), ("A", "B", {}), ("B", "C", {}), ("C", "A", {})],
        ["A", "B", "C"],
    ),
    "diamond": (
        [("targets", "A", {}), ("targets", "B", {}), ("B", "C", {}), ("A", "C", {})],
        ["A", "C", "B"],
    ),
    "diamond, one side does not match": (
        [
            ("targets", "A", {}),
            ("targets", "B", {}),
            ("B", "C", {}),
            ("A", "C", {"paths": ["*.py"]}),
        ],
        ["A", "B", "C"],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_delegated_roles_are_asked_in_search_order(client: Runner, name: str) -> None:
    edges, order = GRAPHS[name]
    for parent, role, more in edges:
        client.repository.delegate(parent, role, **more)
    client.repository.release(*{parent for parent, _, _ in edges} - {"targets"})
    assert client.download("missing") == 1
    assert [role for role, _ in client.repository.asked[4:]] == order


@pytest.mark.parametrize(
    ("path", "ok", "order"),
    [
        ("top", True, []),
        ("README.md", True, ["A"]),
        ("releases/x/v1", True, ["B", "C"]),
        ("releases/y/v1.zip", True, ["B", "D"]),
        ("releases/z/v1.zip", False, ["B"]),
    ],
)
def test_wildcards_lead_to_the_role(
    client: Runner, path: str, ok: bool, order: list[str]
) -> None:
    repository = client.repository
    repository.delegate("targets", "A", paths=["*.doc", "*.md"])
    repository.delegate("targets", "B", paths=["releases/*/*"])
    repository.delegate("B", "C", paths=["releases/x/*"])
    repository.delegate("B", "D", paths=["releases/y/*.zip"])
    for place, role in (
        ("top", "targets"),
        ("README.md", "A"),
        ("releases/x/v1", "C"),
        ("releases/y/v1.zip", "D"),
        ("releases/z/v1.zip", "D"),
    ):
        repository.add_artifact(place, place.encode(), role)
    repository.release("A", "B", "C", "D")
    assert client.download(path) == (0 if ok else 1)
    assert [role for role, _ in repository.asked[4:]] == order
    assert client.downloaded() == ([path.encode()] if ok else [])


def test_a_diamond_is_judged_by_the_keys_of_each_parent(client: Runner) -> None:
    repository = client.repository
    repository.delegate("targets", "A", paths=["a"])
    repository.delegate("targets", "B", paths=["b"])
    repository.delegate("A", "C")
    repository.delegate("B", "C")
    for path in ("a", "b"):
        repository.add_artifact(path, path.encode(), "C")
    stranger = CryptoSigner.generate_ed25519().public_key
    delegations = repository.bodies["B"].delegations
    delegations.roles["C"] = DelegatedRole("C", [stranger.keyid], 1, False, ["*"])
    delegations.keys[stranger.keyid] = stranger
    repository.release("A", "B", "C")
    assert client.download("a", "b") == 1
    assert client.downloaded() == [b"a"]


@pytest.mark.parametrize("role", ["?", "#", "/x", "../x", "%2e"])
def test_odd_role_names_are_one_component_of_a_url_and_of_a_path(
    client: Runner, role: str
) -> None:
    client.repository.delegate("targets", role)
    client.repository.release()
    assert client.download("missing") == 1
    assert len(client.roles()) == 5
    assert [role for role, _ in client.repository.asked[4:]] == [
        role.replace("%", "%25")
        .replace("?", "%3F")
        .replace("#", "%23")
        .replace("/", "%2F")
    ]


def test_a_delegated_role_is_not_fetched_again(client: Runner) -> None:
    client.repository.delegate("targets", "A")
    client.repository.release()
    client.download("missing")
    assert client.download("missing") == 1
    assert client.repository.asked == [("root", 2), ("timestamp", None)]


def test_delegated_roles_expire(client: Runner) -> None:
    client.repository.delegate("targets", "A")
    client.repository.bodies["A"] = Targets(1, expires=PAST)
    client.repository.release("A")
    assert client.download("missing") == 1
    assert "A" not in client.roles()


# ── artifacts ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("algorithms", [("sha256",), ("sha512",), ("sha256", "sha512")])
def test_artifacts_are_had_with_each_hash(client: Runner, algorithms: Any) -> None:
    client.repository.add_artifact("dir/file.txt", b"data", algorithms=algorithms)
    client.repository.release()
    assert client.download("dir/file.txt") == 0
    assert client.downloaded() == [b"data"]


def test_an_unknown_hash_alone_is_refused(client: Runner) -> None:
    entry = client.repository.add_artifact("file", b"data")
    entry.hashes = {"unknown": next(iter(entry.hashes.values()))}
    client.repository.release()
    assert client.download("file") == 1
    assert client.downloaded() == []


def test_a_matching_artifact_is_not_downloaded_again(client: Runner) -> None:
    client.repository.add_artifact("file", b"data")
    client.repository.release()
    assert client.download("file") == 0
    client.repository.artifacts.clear()
    assert client.download("file") == 0


@pytest.mark.parametrize("bad", [b"evil", b"", b"data" * 1000])
def test_rejected_bytes_never_appear(client: Runner, bad: bytes) -> None:
    client.repository.add_artifact("file", b"data")
    client.repository.release()
    for name in client.repository.artifacts:
        client.repository.artifacts[name] = bad
    assert client.download("file") == 1
    assert client.downloaded() == []


def test_a_changed_artifact_keeps_its_name(client: Runner) -> None:
    for data in (b"first", b"second"):
        client.repository.add_artifact("file", data)
        client.repository.release()
        assert client.download("file") == 0
        assert client.downloaded() == [data]


def test_several_artifacts_come_in_order_until_one_fails(client: Runner) -> None:
    for name in ("a", "b"):
        client.repository.add_artifact(name, name.encode())
    client.repository.release()
    assert client.download("a", "missing", "b") == 1
    assert client.downloaded() == [b"a"]
