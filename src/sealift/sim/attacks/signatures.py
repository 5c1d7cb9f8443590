"""Rows B-10 and B-15: signatures that are none, and half of those that are needed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from securesystemslib.signer import SSlibKey

from sealift.sim.attacks.forge import Json, bump, dump, load, nothing
from sealift.sim.attacks.keys import PAIRS, by, careful_again, careless, ec_key
from sealift.sim.attacks.metadata import REPOSITORIES
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene, each
from sealift.sim.vendor import Shape

if TYPE_CHECKING:
    from securesystemslib.signer import Key


# ── B-10: signatures that are none ───────────────────────────────────────────────────
def attack_b_10(ground: Ground) -> Observed:
    """Degenerate signatures under good keys; any signature under degenerate keys."""
    ed25519 = ["", "00", "00" * 63, "00" * 64, "00" * 65, "ff" * 64, "zz" * 64, "é"]
    der = ["", "3006020100020100", "3006020101020101", "30", "00" * 72, "ff" * 72]
    der += ["3006020100020101", "3080020101020101" + "0000", "30080202000102020001"]
    return ground.observed(
        each(
            [
                each(
                    ground.together(_spoilt_by(name, sig) for sig in ed25519)
                    for name in REPOSITORIES
                ),
                _under(ground, _ec_shown(), der),
                *(_under(ground, key, _forgeries()) for key in _small_keys()),
            ]
        )
    )


def _spoilt_by(repository: str, signature: str) -> Plan:
    def spoil(raw: bytes) -> bytes:
        file = load(raw)
        for entry in file["signatures"]:
            entry["sig"] = signature
        return dump(file)

    def act(scene: Scene) -> str:
        forger = scene.forger(repository)
        forger.spoil = {"timestamp": spoil}
        return scene.attempt(scene.serve(repository, forger.chain({})))

    return act


def _under(ground: Ground, shown: Json, signatures: Iterable[str]) -> str:
    """Root names this key for Timestamp; each of these is tried as its signature."""

    def act(scene: Scene) -> str:
        def change(signed: Json) -> None:
            signed["keys"]["odd"] = shown
            signed["roles"]["timestamp"] = {"keyids": ["odd"], "threshold": 1}

        careless(scene, "director", change)
        found = []
        for signature in signatures:
            forger = scene.forger("director")
            forger.spoil = {"timestamp": partial(_odd, signature)}
            files = forger.chain({})
            found.append(scene.attempt(scene.serve("director", files)))
        careful_again(scene, "director", "timestamp")
        return each(found)

    return ground.play(act)


def _odd(signature: str, raw: bytes) -> bytes:
    return dump({**load(raw), "signatures": [{"keyid": "odd", "sig": signature}]})


def _small_keys() -> list[Json]:
    """Points of small order, and other spellings: anybody could sign under them."""
    encodings = (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
    return [
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": it}}
        for it in encodings
    ]


def _forgeries() -> list[str]:
    """R = identity or 0, S = 0: valid for any text under a point of small order."""
    identity = "01" + "00" * 31
    return [identity + "00" * 32, "00" * 64, "ec" + "ff" * 30 + "7f" + "00" * 32]


def _ec_shown() -> Json:
    key: Key = SSlibKey.from_crypto(ec_key().public_key())
    return dict(key.to_dict())


# ── B-15: half of a hybrid ───────────────────────────────────────────────────────────
def attack_b_15(ground: Ground) -> Observed:
    """Signatures of one family only, as many as there are, and some of them twice."""

    def plan(repository: str, role: str, *, classical: bool, twice: bool) -> Plan:
        def spoil(raw: bytes) -> bytes:
            file = load(raw)
            more = [{**it, "keyid": f"{it['keyid']}-2"} for it in file["signatures"]]
            return dump({**file, "signatures": [*file["signatures"], *more]})

        def act(scene: Scene) -> str:
            names = scene.vendor.key_names(repository, role)
            kept = [it for it in names if it.endswith("+pq") != classical]
            signers = scene.vendor.keys.all(kept)
            forger = scene.forger(repository, **{role: signers})
            forger.spoil = {role: spoil} if twice else {}
            files = (
                forger.role("root", bump, nothing)
                if role == "root"
                else forger.chain({})
            )
            return scene.attempt(scene.serve(repository, files, stolen=role != "root"))

        return act

    plans = [
        plan(*pair, classical=classical, twice=twice)
        for pair in PAIRS
        for classical in (True, False)
        for twice in (True, False)
    ]
    return ground.observed(ground.each([*plans, _one_and_three], Shape(hybrid=True)))


def _one_and_three(scene: Scene) -> str:
    """Enough signatures in all, but only one of the second family."""
    names = scene.vendor.key_names("image", "targets")
    classical = [it for it in names if not it.endswith("+pq")]
    partner = [it for it in names if it.endswith("+pq")][:1]
    return by(scene, "image", "targets", scene.vendor.keys.all(classical + partner))
