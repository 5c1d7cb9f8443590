"""Random repositories and attacks on them, all from one seed.

A :class:`World` is a TUF repository that lives on: it publishes, rotates keys, delegates,
lets files expire, and now and then serves something wrong for one step. Files are plain
JSON signed with real keys, so that a wrong one can be signed as well as a right one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any

from sealift.core import canonical
from sealift.core.errors import MalformedError
from tests.maker import NOW, ROLES, Body, Key, key, listing, time

NAMES = ("a", "b", "c", "d", "../e")
PATHS = ("x", "dir/y", "dir/z.img", "nowhere")
PATTERNS: tuple[list[str], ...] = (
    ["*"],
    ["dir/*"],
    ["*", "*/*"],
    ["dir/?"],
    ["dir/*.img"],
    ["X"],
    ["[x]"],
    [],
)
PREFIXES = (["0", "1", "2", "3", "4", "5", "6", "7"], ["8", "9", "a"], ["zz"], [""])
CHILDREN = {"snapshot", "targets", *NAMES}

Files = dict[tuple[str, int | None], bytes]


@lru_cache(maxsize=20_000)
def signature(label: str, data: bytes) -> str:
    """What a key signs; the same question comes often."""
    return key(label).sign(data)


class World:
    """One repository over time. ``files`` is what a client is served in this step."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now: datetime = NOW
        self.story: list[str] = []
        self.hashes = self.chance.random() < 0.5
        self.labels = {role: [f"{role} 0"] for role in ROLES}
        self.thresholds = dict.fromkeys(ROLES, 1)
        self.old_root_labels: list[str] = []
        self.bodies: dict[str, Body] = {role: self._body(role) for role in ROLES}
        self.files: Files = {}
        self.honest: Files = {}
        self._fresh = 0
        self.publish_root()
        self.publish_all()
        self.anchor = self.files["root", 1]

    # ── building blocks ──────────────────────────────────────────────────────────────
    def _body(self, role: str) -> Body:
        kind = role if role in ROLES else "targets"
        body: Body = {"_type": kind, "spec_version": "1.0.34", "version": 1}
        body["expires"] = time(self.now + timedelta(days=30))
        if role == "root":
            body |= {"version": 0, "consistent_snapshot": True}
        if kind == "targets":
            body["targets"] = {}
        if kind == "snapshot":
            body["meta"] = {}
        return body

    def fresh_label(self, role: str) -> str:
        """The label of a key nobody has; the same few keys in every world."""
        self._fresh += 1
        return f"{role} {self._fresh}"

    def sign(self, body: Body, labels: list[str]) -> bytes:
        """The body as a file; what has no canonical form is signed over its JSON."""
        try:
            data = canonical.encode(body)
        except MalformedError:
            data = json.dumps(body).encode()
        signatures = [{"keyid": key(x).id, "sig": signature(x, data)} for x in labels]
        return json.dumps({"signatures": signatures, "signed": body}).encode()

    def rule(self, role: str) -> Body:
        """Who signs a role, as its delegator says."""
        return {
            "keyids": [key(x).id for x in self.labels[role]],
            "threshold": self.thresholds[role],
        }

    def keys_of(self, roles: list[str]) -> Body:
        """The keys of some roles, by id."""
        keys: list[Key] = [key(x) for role in roles for x in self.labels[role]]
        return {k.id: k.public.to_json() for k in keys}

    # ── publishing ───────────────────────────────────────────────────────────────────
    def publish_root(self, labels: list[str] | None = None) -> None:
        """The next Root, by default signed by old and new root keys."""
        body = self.bodies["root"]
        body["version"] += 1
        body["keys"] = self.keys_of(list(ROLES))
        body["roles"] = {role: self.rule(role) for role in ROLES}
        signers = labels
        if signers is None:
            signers = list(dict.fromkeys([*self.old_root_labels, *self.labels["root"]]))
        self.old_root_labels = list(self.labels["root"])
        self._place("root", body["version"], self.sign(body, signers))

    def publish(self, role: str, *, bump: bool = True) -> None:
        """The next version of a role; its parent lists it from now on."""
        body = self.bodies[role]
        version = body.get("version")
        if type(version) is not int:
            version = 1  # a broken body keeps its place
        elif bump:
            version = body["version"] = version + 1
        raw = self.sign(body, self.labels[role])
        self._list(role, version, raw)
        self._place(role, None if role == "timestamp" else version, raw)

    def _list(self, role: str, version: int, raw: bytes) -> None:
        listed = listing(version, raw if self.hashes else None)
        if role == "snapshot":
            self.bodies["timestamp"]["meta"] = {"snapshot.json": listed}
        elif role in CHILDREN and isinstance(self.bodies["snapshot"].get("meta"), dict):
            self.bodies["snapshot"]["meta"][f"{role}.json"] = listed

    def _place(self, role: str, version: int | None, raw: bytes) -> None:
        self.files[role, version] = raw

    def delegated(self) -> list[str]:
        """The delegated roles there are."""
        return [role for role in self.bodies if role not in ROLES]

    def publish_all(self) -> None:
        """Every role below Root, children first."""
        for role in (*self.delegated(), "targets", "snapshot", "timestamp"):
            self.publish(role)

    # ── honest steps ─────────────────────────────────────────────────────────────────
    def evolve(self) -> None:
        """One to three honest changes, then everything is published."""
        steps: list[Callable[[], None]] = [
            self._add_target,
            self._delegate,
            self._delegate,
            self._rotate,
            self._add_key,
            self._publish_some,
            self._later,
            self._new_root,
        ]
        for _ in range(self.chance.randint(1, 3)):
            self.chance.choice(steps)()
        if self.chance.random() < 0.8:
            self.publish_all()

    def _add_target(self) -> None:
        role = self.chance.choice(["targets", *self.delegated()])
        path = self.chance.choice(PATHS[:3])
        size = self.chance.randrange(1000)
        entry: Body = {"length": size, "hashes": {"sha256": f"{size:064x}"}}
        self.bodies[role]["targets"][path] = entry

    def _delegate(self) -> None:
        parent = self.chance.choice(["targets", *self.delegated()])
        role = self.chance.choice(NAMES)
        if role not in self.bodies:
            self.bodies[role] = self._body(role)
            self.labels[role] = [f"{role} 0"]
            self.thresholds[role] = 1
        block = self.bodies[parent].setdefault("delegations", {"keys": {}, "roles": []})
        if any(entry["name"] == role for entry in block["roles"]):
            return
        entry: Body = {"name": role, "terminating": self.chance.random() < 0.2}
        if self.chance.random() < 0.15:
            entry["path_hash_prefixes"] = list(self.chance.choice(PREFIXES))
        else:
            entry["paths"] = list(self.chance.choice(PATTERNS))
        block["keys"] |= self.keys_of([role])
        block["roles"].append(entry | self.rule(role))

    def _rotate(self) -> None:
        role = self.chance.choice(ROLES)
        self.labels[role] = [self.fresh_label(role)]
        self.thresholds[role] = 1
        self.publish_root()

    def _add_key(self) -> None:
        role = self.chance.choice(ROLES)
        self.labels[role].append(self.fresh_label(role))
        self.thresholds[role] = self.chance.randint(1, len(self.labels[role]))
        self.publish_root()

    def _new_root(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self.publish_root()

    def _publish_some(self) -> None:
        for role in ("targets", "snapshot", "timestamp"):
            if self.chance.random() < 0.6:
                self.publish(role)

    def _later(self) -> None:
        self.now += timedelta(days=self.chance.choice([0, 1, 29, 31]))
        for body in self.bodies.values():
            if self.chance.random() < 0.9:
                body["expires"] = time(self.now + timedelta(days=30))
        if self.chance.random() < 0.5:
            self.publish_root()

    # ── attacks ──────────────────────────────────────────────────────────────────────
    def attack(self) -> Callable[[], None]:
        """Do something wrong; what is returned makes it good again."""
        saved = copy.deepcopy((self.bodies, self.labels, self.thresholds))
        root_before = list(self.old_root_labels)
        self.honest = dict(self.files)
        attacks = [
            self._replay,
            self._drop,
            self._swap,
            self._mutate,
            self._mutate,
            self._mutate,
            self._retype,
            self._tamper_signatures,
            self._tamper_signatures,
            self._version,
            self._version,
            self._expire,
            self._bytes,
            self._bad_root,
            self._twin_key,
            self._threshold,
            self._listing,
            self._fast_forward,
            self._duplicate_content,
            self._rare,
        ]
        chosen = self.chance.choice(attacks)
        self.story.append(chosen.__name__)
        chosen()

        def make_good() -> None:
            versions = {
                role: body["version"]
                for role, body in self.bodies.items()
                if type(body.get("version")) is int and 0 < body["version"] < 10**6
            }
            self.bodies, self.labels, self.thresholds = saved
            self.old_root_labels = root_before
            self.files = self.honest
            for role, body in self.bodies.items():
                if role != "root":
                    body["version"] = max(body["version"], versions.get(role, 0)) + 1
            self.publish_all()

        return make_good

    def _any_file(self) -> tuple[str, int | None]:
        """A file a client is likely to ask for."""
        newest = [name for name in self.files if name[1] is None]
        for role in self.bodies:
            versions = [v for r, v in self.files if r == role and v is not None]
            if versions:
                newest.append((role, max(versions)))
        return self.chance.choice(newest)

    def _replay(self) -> None:
        """Older content under the name of newer."""
        role, version = self._any_file()
        older = [raw for (r, _), raw in self.files.items() if r == role]
        self.files[role, version] = self.chance.choice(older)

    def _drop(self) -> None:
        del self.files[self._any_file()]

    def _swap(self) -> None:
        self.files[self._any_file()] = self.files[self._any_file()]

    def _pick_role(self) -> str:
        return self.chance.choice(
            ["root", "timestamp", "snapshot", "targets", *self.delegated()]
        )

    def _republish(self, role: str) -> None:
        """Publish a changed role, and mostly also what lists it."""
        if role == "root":
            self._place(
                "root",
                self._next_root(),
                self.sign(self.bodies["root"], self.old_root_labels),
            )
            return
        self.publish(role, bump=self.chance.random() < 0.7)
        parents = (
            ["snapshot", "timestamp"] if role not in {"snapshot", "timestamp"} else []
        )
        if role == "snapshot":
            parents = ["timestamp"]
        if self.chance.random() < 0.8:
            for parent in parents:
                self.publish(parent)

    def _next_root(self) -> int:
        newest = max(v for r, v in self.honest if r == "root" and v is not None)
        body = self.bodies["root"]
        if body.get("version") == newest:
            body["version"] = newest + 1
        return newest + 1

    def _mutate(self) -> None:
        """Put junk somewhere into a body, and sign that."""
        role = self._pick_role()
        places = list(_places(self.bodies[role]))
        container, name = self.chance.choice(places)
        if self.chance.random() < 0.2:
            del container[name]
        else:
            container[name] = self._junk(container[name])
        self._republish(role)

    def _retype(self) -> None:
        """Like :meth:`_mutate`, of members every role has."""
        role = self._pick_role()
        name = self.chance.choice(["_type", "spec_version", "version", "expires"])
        values: dict[str, list[object]] = {
            "_type": ["root", "targets", "x", None, 1],
            "spec_version": ["1.0", "1.1.0", "2.0.0", "1", "1.x", 1, "1.0.0.0", ""],
            "version": [0, -1, 1.0, "1", True, None, 2**53, 2**63, [1]],
            "expires": [
                "2031-06-01",
                "2031-6-1T0:0:0Z",
                5,
                "2031-06-01T00:00:00",
                "9999-12-31T23:59:59Z",
            ],
        }
        self.bodies[role][name] = self.chance.choice(values[name])
        self._republish(role)

    def _junk(self, old: object) -> object:
        choices: list[object] = [
            None,
            True,
            False,
            0,
            1,
            -1,
            2**53,
            1.5,
            "",
            "x",
            [],
            {},
            ["x"],
            {"x": 1},
        ]
        if isinstance(old, str):
            choices += [
                old + "x",
                old.upper(),
                old[:-1],
                old * 2,
                " " + old,
                old + "\x00",
            ]
        if isinstance(old, int):
            choices += [old + 1, old - 1, str(old), float(old)]
        if isinstance(old, list):
            choices += [old * 2, old[:-1], [*old, *old[:1]], old * 40]
        if isinstance(old, dict):
            choices += [list(old), {**old, "extra": 1}]
        return self.chance.choice(choices)

    def _tamper_signatures(self) -> None:
        name = self._any_file()
        file = json.loads(self.files[name])
        found = file["signatures"]
        one = {"keyid": key("stranger").id, "sig": "00" * 64}
        change = self.chance.randrange(11)
        if change == 0:
            found.clear()
        elif change == 1:
            found.extend(found[:1])
        elif change == 2 and found:
            found[0]["sig"] = self.chance.choice(
                [
                    "",
                    "00",
                    "zz",
                    "00" * 64,
                    found[0]["sig"][:-2],
                    found[0]["sig"] + "00",
                ]
            )
        elif change == 3 and found:
            found[0]["sig"] = found[0]["sig"].upper()
        elif change == 4 and found:
            found[0]["sig"] = self.chance.choice([None, 1, ["00"]])
        elif change == 5:
            found.insert(0, one)
        elif change == 6 and found:
            found[0]["keyid"] = key("stranger").id
        elif change == 7 and found:
            found[0] = {**found[0], "extra": 1}
        elif change == 8:
            found.extend(
                {"keyid": f"k{n}", "sig": ""}
                for n in range(self.chance.choice([10, 70]))
            )
        elif change == 9:
            data = canonical.encode(file["signed"])
            label = self.chance.choice(list(self.labels.values()))[0]
            file["signatures"] = [
                {"keyid": key(label).id, "sig": signature(label, data)}
            ]
        else:
            file[self.chance.choice(["signatures", "extra"])] = self.chance.choice(
                [None, {}, "x"]
            )
        self.files[name] = json.dumps(file).encode()

    def _version(self) -> None:
        role = self._pick_role()
        body = self.bodies[role]
        old = body["version"]
        body["version"] = max(1, old + self.chance.choice([-2, -1, 0, 1, 2, 100]))
        if role == "root":
            self._place(
                "root", self._next_root(), self.sign(body, self.old_root_labels)
            )
            return
        self.publish(role, bump=False)
        for parent in ("snapshot", "timestamp"):
            if self.chance.random() < 0.7 and parent != role:
                self.publish(parent, bump=self.chance.random() < 0.8)

    def _expire(self) -> None:
        role = self._pick_role()
        offset = self.chance.choice([-86_400, -1, 0, 1])
        self.bodies[role]["expires"] = time(self.now + timedelta(seconds=offset))
        self._republish(role)

    def _bytes(self) -> None:
        name = self._any_file()
        raw = self.files[name]
        cut = self.chance.randrange(len(raw))
        self.files[name] = self.chance.choice(
            [
                raw[:cut],
                raw + b" ",
                raw + b"x",
                b"\xef\xbb\xbf" + raw,
                raw.replace(b'"signed": {', b'"signed": {"_type": "x", ', 1),
                raw.replace(b'"signed": {', b'"signed": {"x": NaN, ', 1),
                raw.replace(b'"signatures"', b'"y": 1.5, "signatures"', 1),
                raw.replace(b'"signatures"', b'"y": "\\ud800", "signatures"', 1),
                raw.replace(b'"signatures"', b'"y": 1, "y": 2, "signatures"', 1),
                raw.replace(
                    b'"signatures"',
                    b'"y": ' + b"[" * 40 + b"]" * 40 + b', "signatures"',
                    1,
                ),
                raw.decode().encode("utf-16"),
                json.dumps(json.loads(raw), indent=1).encode(),
            ]
        )

    def _bad_root(self) -> None:
        self._next_root()
        before = list(self.old_root_labels)
        if self.chance.random() < 0.6:
            self.labels["root"] = [self.fresh_label("root")]
        body = self.bodies["root"]
        body["version"] -= 1
        signers = self.chance.choice(
            [
                before,
                self.labels["root"],
                ["stranger"],
                [],
                before * 1 + self.labels["root"],
            ]
        )
        self.publish_root(list(dict.fromkeys(signers)))

    def _twin_key(self) -> None:
        """One key under two ids, and a threshold of two."""
        role = self.chance.choice(ROLES)
        self._next_root()
        body = self.bodies["root"]
        label = self.labels[role][0]
        body["keys"] = self.keys_of(list(ROLES)) | {"twin": key(label).public.to_json()}
        body["roles"][role] = {
            "keyids": [key(label).id, "twin"],
            "threshold": self.chance.randint(1, 2),
        }
        raw = json.loads(self.sign(body, self.old_root_labels))
        self._add_twin(raw, label) if role == "root" else None
        self._place("root", body["version"], json.dumps(raw).encode())
        for name in [
            (role, v) for r, v in list(self.files) if r == role and role != "root"
        ]:
            file = json.loads(self.files[name])
            self._add_twin(file, label)
            self.files[name] = json.dumps(file).encode()

    @staticmethod
    def _add_twin(file: Any, label: str) -> None:
        same = [s for s in file["signatures"] if s["keyid"] == key(label).id]
        file["signatures"] += [{**s, "keyid": "twin"} for s in same[:1]]

    def _threshold(self) -> None:
        role = self.chance.choice(ROLES)
        self._next_root()
        body = self.bodies["root"]
        body["roles"][role]["threshold"] = self.chance.choice(
            [0, -1, 1, 2, 3, 32, 33, "1", 1.0, True]
        )
        self._place("root", body["version"], self.sign(body, self.old_root_labels))

    def _listing(self) -> None:
        parent, name = self.chance.choice(
            [("timestamp", "snapshot.json"), ("snapshot", "targets.json")]
        )
        listed = self.bodies[parent]["meta"][name]
        change = self.chance.randrange(7)
        if change == 0:
            listed["version"] += self.chance.choice([-1, 1, 5])
        elif change == 1:
            listed["length"] = self.chance.choice([0, 1, 10**6, -1])
        elif change == 2:
            listed["hashes"] = {"sha256": "00" * 32}
        elif change == 3:
            listed["hashes"] = {self.chance.choice(["md5", "sha1", "x"]): "00" * 16}
        elif change == 4:
            del self.bodies[parent]["meta"][name]
        elif change == 5:
            listed["hashes"] = {}
        else:
            listed["extra"] = 1
        self.publish(parent)
        if parent == "snapshot":
            self.publish("timestamp")

    def _fast_forward(self) -> None:
        role = self.chance.choice(ROLES[1:])
        self.bodies[role]["version"] = 10**6 + self.chance.randrange(10)
        for name in ("targets", "snapshot", "timestamp"):
            self.publish(name)

    def _rare(self) -> None:
        """What junk seldom hits: each has its line in the list of differences."""
        targets = self.bodies["targets"]
        change = self.chance.randrange(6)
        if change == 0:
            bins = {"bit_length": 4, "name_prefix": "bin", **self.rule("targets")}
            keys = self.keys_of(["targets"])
            targets["delegations"] = {"keys": keys, "succinct_roles": bins}
        elif change == 1:
            path = self.chance.choice(["a\0b", "x" * 2000, "x/" * 40, "\n"])
            targets["targets"][path] = {"length": 1, "hashes": {"sha256": "00" * 32}}
        elif change == 2:
            odd: Body = {"keytype": "rsa", "scheme": "rsa-pkcs1v15-sha256"}
            odd["keyval"] = {"public": "x"}
            targets["delegations"] = {"keys": {"k": odd}, "roles": []}
        elif change == 3:
            self.publish("snapshot")
            self.bodies["timestamp"]["meta"]["more.json"] = {"version": 1}
            self.publish("timestamp")
            return
        elif change == 4:
            self._next_root()
            body = self.bodies["root"]
            for found in body["keys"].values():
                found["keyval"]["public"] += "\n"
            self._place("root", body["version"], self.sign(body, self.old_root_labels))
            return
        else:
            self.bodies["timestamp"]["expires"] = "2031-6-1T0:0:0Z"
        self.publish_all()

    def _duplicate_content(self) -> None:
        """The same version again with other content: a lie of whoever holds the keys."""
        role = self.chance.choice(["timestamp", "snapshot", "targets"])
        self.bodies[role]["x-other"] = self.chance.randrange(10**6)
        self.publish(role, bump=False)
        if role != "timestamp" and self.chance.random() < 0.7:
            self.publish("timestamp")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict):
        found: list[tuple[Any, Any]] = [(value, name) for name in value]
    elif isinstance(value, list):
        found = [(value, number) for number in range(len(value))]
    else:
        return []
    return found + [place for _, name in found for place in _places(value[name])]
