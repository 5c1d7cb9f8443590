"""Rows B-11 to B-14: keys as they are introduced, and as a device keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed448, mldsa, rsa
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Root

from sealift.core.keys import DEMO_MARK
from sealift.repo import roots
from sealift.repo.policy import introduce
from sealift.repo.roots import RoleKeys
from sealift.sim.attacks.forge import Change, Json, bump, join, load
from sealift.sim.attacks.metadata import REPOSITORIES
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene, each, refusal

if TYPE_CHECKING:
    from securesystemslib.signer import Key


# ── B-11, B-12: what may be introduced ───────────────────────────────────────────────
def attack_b_11(ground: Ground) -> Observed:
    """Keys everybody has: in a new Root, in the trust anchor; offered to the signer."""
    rotated = [_demo_root(name) for name in REPOSITORIES]
    anchored = [_demo_anchor(name) for name in REPOSITORIES]
    return ground.observed(
        ground.each([*rotated, *anchored]), ground.play(_demo_at_signer)
    )


def _mark(signed: Json) -> None:
    for key in signed["keys"].values():
        key[DEMO_MARK] = True


def _demo_root(repository: str) -> Plan:
    def act(scene: Scene) -> str:
        files = scene.forger(repository).role("root", bump, _mark)
        return scene.attempt(scene.serve(repository, files))

    return act


def _demo_anchor(repository: str) -> Plan:
    def act(scene: Scene) -> str:
        signed = load(scene.vendor.stores[repository].files["1.root.json"])["signed"]
        _mark(signed)
        raw = join(signed, scene.vendor.signers(repository, "root"))
        with _instead(scene.device.anchor(repository), raw):
            return scene.attempt()

    return act


@contextmanager
def _instead(path: Path, raw: bytes) -> Iterator[None]:
    """Other bytes in a trust anchor, for a while."""
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(raw)
    path.chmod(0o444)
    try:
        yield
    finally:
        path.chmod(0o644)
        path.write_bytes(before)
        path.chmod(0o444)


def _demo_at_signer(scene: Scene) -> str:
    """Marked keys, and keys whose private half stands in an RFC."""
    shown = scene.thief.public("demo").to_dict()
    marked = SSlibKey.from_dict("demo", {**shown, DEMO_MARK: True})
    published = SSlibKey.from_dict(
        "rfc8032",
        {
            "keytype": "ed25519",
            "scheme": "ed25519",
            "keyval": {
                "public": "d75a980182b10ab7d54bfed3c964073a"
                "0ee172f3daa62325af021a68f707511a"
            },
        },
    )
    keys: tuple[Key, ...] = (marked, published)
    introduced = [refusal(partial(introduce, key)) for key in keys]
    named = [refusal(partial(_authored, scene, timestamp=[key])) for key in keys]
    return each([*introduced, *named])


def _authored(scene: Scene, *, threshold: int = 1, **roles: list[Key]) -> Root:
    """A Root with these keys for these roles."""
    named = {role: scene.vendor.rule("image", role) for role in roots.ROLES}
    own = {role: RoleKeys(tuple(keys), threshold) for role, keys in roles.items()}
    return roots.author({**named, **own}, now=scene.true_now())


def attack_b_12(ground: Ground) -> Observed:
    """Short RSA, curves and schemes off the list; one key in two roles, or twice."""

    def plan(scene: Scene) -> str:
        weak = [
            SSlibKey.from_crypto(rsa.generate_private_key(65537, 1024).public_key()),  # noqa: S505
            SSlibKey.from_crypto(rsa.generate_private_key(65537, 3072).public_key()),
            SSlibKey.from_crypto(ec.generate_private_key(ec.SECP384R1()).public_key()),
            SSlibKey.from_crypto(ec.generate_private_key(ec.SECP521R1()).public_key()),
            SSlibKey.from_crypto(mldsa.MLDSA44PrivateKey.generate().public_key()),
            _named(
                "ed448",
                ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw(),
            ),
            _named("ed25519", b"\1" + bytes(31)),
            _named("hmac", bytes(32)),
        ]
        root = scene.vendor.keys.public("image-root-1")
        people = [scene.thief.public(f"person-{n}") for n in range(3)]
        acts: list[Callable[[], object]] = [
            *(partial(introduce, key) for key in weak),
            *(partial(_authored, scene, timestamp=[key]) for key in weak),
            lambda: _authored(scene, timestamp=[root]),
            lambda: _authored(scene, targets=[people[0], people[0]], threshold=2),
            lambda: _authored(scene, root=people, threshold=1),
            lambda: _authored(scene, root=people[:2], threshold=2),
            lambda: _authored(scene, targets=people, threshold=4),
            lambda: roots.refuse_shared_keys(
                image=_authored(scene), director=_authored(scene)
            ),
        ]
        return each(refusal(act) for act in acts)

    return ground.observed(ground.play(plan))


def _named(keytype: str, public: bytes) -> Key:
    value = {"public": public.hex()}
    return SSlibKey(f"odd-{keytype}", keytype, keytype, value)


# ── B-13, B-14: what the device believes ─────────────────────────────────────────────
def attack_b_13(ground: Ground) -> Observed:
    """A key that can sign because it can verify: in Root, in a delegation."""
    kinds = [("hmac", "hmac-sha256"), ("oct", "HS256"), ("ed25519", "hmac-sha256")]

    def in_root(kind: tuple[str, str]) -> Plan:
        def change(signed: Json) -> None:
            signed["keys"]["shared"] = _symmetric(*kind)
            signed["roles"]["timestamp"]["keyids"] = ["shared"]

        def act(scene: Scene) -> str:
            files = scene.forger("director").role("root", bump, change)
            return scene.attempt(scene.serve("director", files))

        return act

    def delegated(kind: tuple[str, str]) -> Plan:
        def act(scene: Scene) -> str:
            change: dict[str, Change] = {"targets": _delegation(_symmetric(*kind))}
            files = scene.forger("image").chain(change)
            return scene.attempt(scene.serve("image", files, stolen=True))

        return act

    return ground.observed(
        each(
            [
                ground.together(in_root(kind) for kind in kinds),
                ground.together(delegated(kind) for kind in kinds),
            ]
        )
    )


def _symmetric(keytype: str, scheme: str) -> Json:
    return {"keytype": keytype, "scheme": scheme, "keyval": {"public": "00" * 32}}


def _delegation(key: Json) -> Change:
    role = {
        "name": "shared",
        "keyids": ["shared"],
        "threshold": 1,
        "terminating": False,
        "paths": ["*"],
    }

    def change(signed: Json) -> None:
        signed["delegations"] = {"keys": {"shared": key}, "roles": [role]}

    return change


def attack_b_14(ground: Ground) -> Observed:
    """The trust anchor deleted, emptied, made writable, a link, a directory, junk."""

    def plan(repository: str, harm: Callable[[Path], None]) -> Plan:
        def act(scene: Scene) -> str:
            anchor = scene.device.anchor(repository)
            before = anchor.read_bytes()
            harm(anchor)
            scene.wire.requests.clear()
            outcome = scene.attempt()
            _restore(anchor, before)
            if any(request.method == "GET" for request in scene.wire.requests):
                return f"{outcome}, and it asked the server"
            return outcome

        return act

    harms = (_delete, _empty, _writable, _linked, _directory, _junk)
    return ground.observed(
        ground.each(plan(name, harm) for name in REPOSITORIES for harm in harms)
    )


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def _writable(path: Path) -> None:
    path.chmod(0o666)


def _linked(path: Path) -> None:
    moved = path.with_suffix(".moved")
    path.rename(moved)
    path.symlink_to(moved)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _junk(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"{}")


def _restore(path: Path, raw: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.touch(mode=0o644)
    path.write_bytes(raw)
    path.chmod(0o444)
