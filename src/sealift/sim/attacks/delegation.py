"""Rows A-27 and A-28: who may speak for an artifact, and what his file must be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient import FetcherInterface, Updater  # noqa: TID251 -- here it is the oracle

from sealift.agent.repository import Repository
from sealift.core.errors import MetadataError, NoTargetError
from sealift.core.metadata import encoded
from sealift.core.trust import resume
from sealift.core.trusted import foreign_rules
from sealift.repo.repository import SPEC_VERSION, sign
from sealift.sim.attacks.forge import Change, Json, bump, put
from sealift.sim.attacks.metadata import SUPPLIED
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene, refusal
from sealift.sim.vendor import PRODUCT, Keys, make_release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sealift.core.trusted import Want

GRAPHS = 120
FAR = datetime(2100, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
PATHS = ("a", "a.img", "b/a", "b/c", "b/c/d")
PATTERNS = ("*", "a", "a*", "?", "b/*", "b/?", "*/c", "b/c/*", "x", "[ab]", "B/*")
URL = "https://oracle.invalid/"


# ── A-27: the same answer as python-tuf ──────────────────────────────────────────────
@dataclass
class Graph:
    """A small repository whose Targets roles delegate at random."""

    seed: int
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._keys = Keys(f"graph-{self.seed}")
        self._roles = [f"r{n}" for n in range(self._chance.randint(1, 9))]
        meta = {}
        for number, role in enumerate(["targets", *self._roles]):
            raw = sign(self._targets(number), [self._keys[role]])
            self.files[f"1.{role}.json"] = raw
            meta[f"{role}.json"] = MetaFile.from_data(1, raw, ["sha256"])
        finish(self.files, self._keys, meta)

    def _targets(self, number: int) -> Targets:
        """Which role answered can be told from the length."""
        listed = {
            path: TargetFile(number + 1, {"sha256": f"{number:064x}"}, path)
            for path in PATHS
            if self._chance.random() < 0.2
        }
        delegations = self._delegations()
        return Targets(1, SPEC_VERSION, FAR, listed, delegations)

    def _delegations(self) -> Delegations | None:
        count = self._chance.randint(0, min(4, len(self._roles)))
        children = self._chance.sample(self._roles, count)
        if not children:
            return None
        roles, keys = {}, {}
        for child in children:
            wrong = self._chance.random() < 0.05  # L7: this parent names another key
            key = self._keys.public("stranger" if wrong else child)
            keys[key.keyid] = key
            patterns = self._chance.sample(PATTERNS, self._chance.randint(1, 3))
            terminating = self._chance.random() < 0.25
            roles[child] = DelegatedRole(child, [key.keyid], 1, terminating, patterns)
        return Delegations(keys, roles)


def finish(files: dict[str, bytes], keys: Keys, meta: dict[str, MetaFile]) -> None:
    """Snapshot, Timestamp and Root over Targets files."""
    snapshot = sign(Snapshot(1, SPEC_VERSION, FAR, meta), [keys["snapshot"]])
    link = MetaFile.from_data(1, snapshot, ["sha256"])
    timestamp = sign(Timestamp(1, SPEC_VERSION, FAR, link), [keys["timestamp"]])
    root = Root(1, SPEC_VERSION, FAR, consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(keys.public(role), role)
    files["1.root.json"] = sign(root, [keys["root"]])
    files["1.snapshot.json"], files["timestamp.json"] = snapshot, timestamp


def attack_a_27(ground: Ground) -> Observed:
    """Random graphs with cycles, diamonds, terminating roles and foreign keys."""
    place = ground.directory / "oracle"
    place.mkdir()
    differing = []
    for seed in range(GRAPHS):
        files = Graph(seed).files
        for path in PATHS:
            ours, theirs = _ours(files, path), _theirs(files, path, place)
            if ours != theirs:
                differing.append(f"graph {seed}, {path}: {ours}, python-tuf {theirs}")
    compared = "; ".join(differing[:3]) or "as python-tuf"
    too_many = {refusal(partial(_search, it, "a")) for it in _endless()}
    return ground.observed(compared, " | ".join(sorted(too_many)))


def _search(files: dict[str, bytes], path: str) -> int:
    """The length in the entry our search finds; it raises if there is none."""

    def fetch(_name: str, want: Want, _known: bytes | None) -> bytes | None:
        version = "" if want.version is None else f"{want.version}."
        return files.get(f"{version}{encoded(want.role)}.json")

    state = resume(foreign_rules(), files["1.root.json"], lambda _: None)
    repository = Repository("image", state, fetch)
    repository.complete(NOW)
    return repository.search(path, "", NOW).target.length


def _ours(files: dict[str, bytes], path: str) -> int | str:
    try:
        return _search(files, path)
    except NoTargetError:
        return "nobody"
    except MetadataError:
        return "refused"


class _Files(FetcherInterface):
    """python-tuf's way to files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(URL)
        if name not in self._files:
            raise DownloadHTTPError(name, 404)
        yield self._files[name]


def _theirs(files: dict[str, bytes], path: str, place: Path) -> int | str:
    for name in place.iterdir():
        if name.is_dir():
            for root in name.iterdir():
                root.unlink()
            name.rmdir()
        else:
            name.unlink()
    oracle = Updater(
        str(place), URL, fetcher=_Files(files), bootstrap=files["1.root.json"]
    )
    try:
        found = oracle.get_targetinfo(path)
    except (RepositoryError, DownloadError):
        return "refused"
    return "nobody" if found is None else found.length


def _endless() -> Iterator[dict[str, bytes]]:
    """A chain of forty roles; a file with a thousand delegations."""
    keys = Keys("chain")
    roles = [f"r{n}" for n in range(40)]
    yield _repository(keys, [[role] for role in roles])
    yield _repository(keys, [[f"s{n}" for n in range(1000)]])


def _repository(keys: Keys, levels: list[list[str]]) -> dict[str, bytes]:
    """Targets delegates to the first level, the first role of that to the second."""
    files: dict[str, bytes] = {}
    meta: dict[str, Any] = {}
    roles = ["targets", *(level[0] for level in levels)]
    for role, below in zip(roles, [*levels, []], strict=True):
        public = keys.public("shared")
        named = {
            child: DelegatedRole(child, [public.keyid], 1, False, ["*"])
            for child in below
        }
        delegations = Delegations({public.keyid: public}, named) if named else None
        signer = keys["targets" if role == "targets" else "shared"]
        raw = sign(Targets(1, SPEC_VERSION, FAR, {}, delegations), [signer])
        files[f"1.{role}.json"] = raw
        meta[f"{role}.json"] = MetaFile.from_data(1, raw, ["sha256"])
    finish(files, keys, meta)
    return files


# ── A-28: the checks of a delegated file ─────────────────────────────────────────────
def attack_a_28(ground: Ground) -> Observed:
    """A supplier's file expired; then listed with another hash, length or version."""
    hashes: Json = {"hashes": {"sha256": "0" * 64}}
    mixed = [_listed(fact) for fact in (hashes, {"length": 5000})]
    return ground.observed(
        ground.play(_changed(put("expires", "2026-01-01T00:00:00Z")), SUPPLIED),
        ground.each([*mixed, _renumbered], SUPPLIED),
    )


def supplied(scene: Scene) -> None:
    """An honest release of the supplier, ordered and waiting."""
    made = make_release("2.0", 4, name=f"{PRODUCT}/acme-2.0.img")
    scene.vendor.release(made, supplier="acme")
    scene.order(made.order(scene.device.ecu_id))


def _changed(change: Change) -> Plan:
    def act(scene: Scene) -> str:
        supplied(scene)
        forger = scene.forger("image", acme=[scene.vendor.keys["supplier-acme"]])
        files = forger.chain({"acme": change})
        return scene.attempt(scene.serve("image", files, stolen=True))

    return act


def _listed(fact: Json) -> Plan:
    def change(signed: Json) -> None:
        signed["meta"]["acme.json"] |= fact

    def act(scene: Scene) -> str:
        supplied(scene)
        files = scene.forger("image").chain({"snapshot": change})
        return scene.attempt(scene.serve("image", files, stolen=True))

    return act


def _renumbered(scene: Scene) -> str:
    """The supplier's file says another version than its name and its listing."""
    supplied(scene)
    forger = scene.forger("image", acme=[scene.vendor.keys["supplier-acme"]])
    forger.number = {"acme": forger.newest("acme")["signed"]["version"]}
    files = forger.chain({"acme": bump})
    return scene.attempt(scene.serve("image", files, stolen=True))
