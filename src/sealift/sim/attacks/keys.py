"""Rows B-01 to B-04 and B-09: whose signature counts, and how often.

Some of these need a Root no careful vendor would sign: a key under two names, a curve
of another kind. ``careless`` has the vendor publish it all the same, by the real
threshold, so that nothing but the verifier's counting stands in the way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.signer import CryptoSigner, SSlibKey

from sealift.sim import network
from sealift.sim.attacks.delegation import supplied
from sealift.sim.attacks.forge import Change, Json, bump, dump, load, nothing
from sealift.sim.attacks.metadata import REPOSITORIES, ROLES, SUPPLIED
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene, each
from sealift.sim.vendor import Keys

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

PAIRS = (("image", "targets"), ("image", "root"), ("director", "root"))
"""Roles behind a threshold of two."""


def careless(scene: Scene, repository: str, change: Change) -> None:
    """Have the vendor publish a Root that was changed like this."""
    [(name, raw)] = scene.forger(repository).role("root", bump, change).items()
    scene.vendor.stores[repository].write(name, raw)
    scene.vendor.said.add(raw)


def careful_again(scene: Scene, repository: str, *roles: str) -> None:
    """Have the vendor put it right, with new keys for these roles."""
    scene.vendor.rotate(repository, *roles)
    if (repository, "targets") in {(repository, role) for role in roles}:
        scene.publish("1.5", 6)


def by(scene: Scene, repository: str, role: str, signers: Sequence[Signer]) -> str:
    """An attempt with one role's file signed by these, all others by real keys."""
    forger = scene.forger(repository, **{role: signers})
    if role == "root":
        return scene.attempt(scene.serve(repository, forger.role("root", bump)))
    return scene.attempt(scene.serve(repository, forger.chain({}), stolen=True))


# ── B-01: one key counted twice ──────────────────────────────────────────────────────
def attack_b_01(ground: Ground) -> Observed:
    """One key under two ids, spellings and schemes; then ids that repeat."""
    twins = [_hex_twin, _other_id, _pem_twin, _scheme_twin]
    counted = ground.each(_as_two(make) for make in twins)
    repeated = [_repeated_signature(*pair) for pair in PAIRS]
    return ground.observed(
        counted,
        each([ground.each(repeated), ground.play(_repeated_key_id)]),
    )


Twins = list[tuple[Json, "Signer"]]
"""Key objects that are one key, each with who signs for it."""


def _hex_twin(scene: Scene) -> Twins:
    """The same ed25519 key in capital letters."""
    signer = scene.thief["twin"]
    shown = signer.public_key.to_dict()
    capital = copy.deepcopy(shown)
    capital["keyval"]["public"] = shown["keyval"]["public"].upper()
    return [(shown, signer), (capital, signer)]


def _other_id(scene: Scene) -> Twins:
    """The same key object under two ids."""
    signer = scene.thief["twin"]
    return [(signer.public_key.to_dict(), signer)] * 2


def _pem_twin(scene: Scene) -> Twins:
    """One ECDSA key in two PEM texts."""
    del scene
    signer = CryptoSigner(ec_key(), None)
    shown = signer.public_key.to_dict()
    other = copy.deepcopy(shown)
    other["keyval"]["public"] = shown["keyval"]["public"].replace("\n", "\r\n")
    return [(shown, signer), (other, signer)]


def _scheme_twin(scene: Scene) -> Twins:
    """One RSA key under two schemes, signing under each."""
    del scene
    private = _rsa_key()
    found: Twins = []
    for scheme in ("rsassa-pss-sha256", "rsassa-pss-sha512"):
        key = SSlibKey.from_crypto(private.public_key(), scheme=scheme)
        found.append((key.to_dict(), CryptoSigner(private, key)))
    return found


def _as_two(make: Callable[[Scene], Twins]) -> Plan:
    """Root asks for two of these keys; somebody holds the one they are."""

    def act(scene: Scene) -> str:
        twins = make(scene)

        def change(signed: Json) -> None:
            for number, (shown, _) in enumerate(twins):
                signed["keys"][f"twin-{number}"] = shown
            ids = [f"twin-{number}" for number in range(len(twins))]
            signed["roles"]["targets"] |= {"keyids": ids, "threshold": 2}

        careless(scene, "image", change)
        forger = scene.forger("image", targets=[signer for _, signer in twins])

        def rename(raw: bytes) -> bytes:
            file = load(raw)
            for number, signature in enumerate(file["signatures"]):
                signature["keyid"] = f"twin-{number}"
            return dump(file)

        forger.spoil = {"targets": rename}
        outcome = scene.attempt(scene.serve("image", forger.chain({}), stolen=True))
        careful_again(scene, "image", "targets")
        return outcome

    return act


def _repeated_signature(repository: str, role: str) -> Plan:
    """The signature of one key, several times under its own id."""

    def act(scene: Scene) -> str:
        one = scene.vendor.signers(repository, role)[:1]
        return by(scene, repository, role, one * 3)

    return act


def _repeated_key_id(scene: Scene) -> str:
    """A Root that lists one key id twice for a role."""

    def change(signed: Json) -> None:
        rule = signed["roles"]["targets"]
        rule["keyids"] = rule["keyids"][:1] * 2

    files = scene.forger("image").role("root", bump, change)
    return scene.attempt(scene.serve("image", files))


# ── B-02, B-03: too few, and the wrong ones ──────────────────────────────────────────
def attack_b_02(ground: Ground) -> Observed:
    """One real key and junk where two must sign; and two keys that were replaced."""

    def plan(repository: str, role: str) -> Plan:
        def act(scene: Scene) -> str:
            real = scene.vendor.signers(repository, role)
            forger = scene.forger(repository, **{role: real})
            forger.spoil = {role: lambda raw: _junk(raw, scene)}
            files = (
                forger.role("root", bump, _take_over(scene))
                if role == "root"
                else forger.chain({})
            )
            return scene.attempt(scene.serve(repository, files, stolen=role != "root"))

        return act

    def replaced(scene: Scene) -> str:
        stolen = scene.vendor.signers("image", "targets")
        scene.vendor.rotate("image", "targets")
        scene.publish("1.4", 5)
        return by(scene, "image", "targets", stolen)

    return ground.observed(ground.each([*(plan(*pair) for pair in PAIRS), replaced]))


def _junk(raw: bytes, scene: Scene) -> bytes:
    """The second signature spoiled, and others added that nobody asked for."""
    file = load(raw)
    first, second = file["signatures"]
    thief = scene.thief["junk"]
    more = [
        {**second, "sig": first["sig"]},
        {"keyid": thief.public_key.keyid, "sig": first["sig"]},
        {"keyid": "nobody", "sig": ""},
        {"keyid": "unknown", "sig": "zz"},
    ]
    return dump({**file, "signatures": [first, *more]})


def _take_over(scene: Scene) -> Change:
    """The thief's key in the place of a person's."""

    def change(signed: Json) -> None:
        key = scene.thief.public("junk")
        signed["keys"][key.keyid] = key.to_dict()
        signed["roles"]["root"]["keyids"][-1] = key.keyid

    return change


def attack_b_03(ground: Ground) -> Observed:
    """Every role's file signed by the keys of each other role, of another vendor."""
    roles = [(name, role) for name in REPOSITORIES for role in ROLES]

    def plan(role: tuple[str, str], other: tuple[str, str]) -> Plan:
        return lambda scene: by(scene, *role, scene.vendor.signers(*other))

    def sibling(role: tuple[str, str]) -> Plan:
        def act(scene: Scene) -> str:
            tenant = Keys("another-vendor")
            names = scene.vendor.key_names(*role)
            return by(scene, *role, tenant.all(names))

        return act

    found = [
        ground.together(
            [*(plan(role, it) for it in roles if it != role), sibling(role)]
        )
        for role in roles
    ]
    return ground.observed(each(found))


# ── B-04: keys that come with what they sign ─────────────────────────────────────────
def attack_b_04(ground: Ground) -> Observed:
    """The attacker's public key wherever a trusting reader might look for one."""

    def plan(repository: str, role: str, place: Callable[[Json, Json], None]) -> Plan:
        def act(scene: Scene) -> str:
            thief = scene.thief["shipped"]
            shown = thief.public_key.to_dict()
            inside = place is _inside

            def change(signed: Json) -> None:
                if inside:
                    place(signed, {thief.public_key.keyid: shown})

            def spoil(raw: bytes) -> bytes:
                file = load(raw)
                if not inside:
                    place(file, {thief.public_key.keyid: shown})
                return dump(file)

            forger = scene.forger(repository, **{role: [thief]})
            forger.spoil = {role: spoil}
            files = (
                forger.role("root", bump, change)
                if role == "root"
                else forger.chain({role: change})
            )
            return scene.attempt(scene.serve(repository, files, stolen=True))

        return act

    places = (_inside, _beside, _within)
    return ground.observed(
        each(
            ground.together(
                plan(name, role, place) for role in ROLES for place in places
            )
            for name in REPOSITORIES
        )
    )


def _inside(signed: Json, keys: Json) -> None:
    signed["keys"] = {**signed.get("keys", {}), **keys}


def _beside(file: Json, keys: Json) -> None:
    file["keys"], file["certificates"] = keys, list(keys)


def _within(file: Json, keys: Json) -> None:
    for signature in file["signatures"]:
        [signature["key"]] = keys.values()


# ── B-09: keys that counted once ─────────────────────────────────────────────────────
def attack_b_09(ground: Ground) -> Observed:
    """A removed supplier's key, rotated keys of each role; the old delegation again."""

    def rotated(repository: str, role: str) -> Plan:
        def act(scene: Scene) -> str:
            stolen = scene.vendor.signers(repository, role)
            scene.vendor.rotate(repository, role)
            if (repository, role) == ("image", "targets"):
                scene.publish("1.4", 5)
            return by(scene, repository, role, stolen)

        return act

    def removed(scene: Scene) -> str:
        supplied(scene)
        stolen = scene.vendor.keys[scene.vendor.supplier_key("acme")]
        scene.vendor.replace_supplier_key("acme")
        forger = scene.forger("image", acme=[stolen])
        files = forger.chain({"acme": nothing})
        return scene.attempt(scene.serve("image", files, stolen=True))

    def replayed(scene: Scene) -> str:
        supplied(scene)
        recorded = scene.served()
        scene.vendor.replace_supplier_key("acme")
        scene.require(scene.attempt(), "installed")
        scene.publish("2.1", 5)
        scene.waiting = True
        old = {p: raw for p, raw in recorded.items() if p.startswith("image/metadata")}
        return scene.attempt(network.replace(old))

    roles = [(name, role) for name in REPOSITORIES for role in ROLES]
    return ground.observed(
        each(
            [
                ground.each(rotated(*role) for role in roles),
                ground.play(removed, SUPPLIED),
            ]
        ),
        ground.play(replayed, SUPPLIED),
    )


def ec_key() -> ec.EllipticCurvePrivateKey:
    """An ECDSA key that is the same every time."""
    return ec.derive_private_key(0x5EA11F7, ec.SECP256R1())


_RSA: list[rsa.RSAPrivateKey] = []


def _rsa_key() -> rsa.RSAPrivateKey:
    """An RSA key; chance cannot be handed in here, and does not matter."""
    if not _RSA:
        _RSA.append(rsa.generate_private_key(65537, 2048))
    return _RSA[0]
