"""Keys on a PKCS#11 token: a real token library, the real command line.

SoftHSM comes from the machine if it is installed, else `tools.debs` unpacks it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Root

from sealift.repo import online
from sealift.repo.repository import read
from sealift.repo.roots import check_next
from sealift.sign.desk import Desk
from sealift.sign.travel import Letter

SEALIFT = Path(sys.executable).parent / "sealift"
PIN = "1234"
MODULES = (
    "usr/lib/softhsm/libsofthsm2.so",
    "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)

# Makes an EC key pair on the token; argv: module, label, curve.
MAKE_KEY = """
import sys, pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
module, label, number, curve = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="desk")
with token.open(user_pin="1234", rw=True) as session:
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC,
        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
        local=True,
    )
    parameters.generate_keypair(store=True, label=label, id=bytes([int(number)]))
"""


def _installed() -> tuple[Path, Path]:
    """softhsm2-util and its module, fetched if the machine has neither."""
    util = shutil.which("softhsm2-util")
    root = Path("/")
    if util is None:
        from tools.debs import fetch

        root = fetch(["softhsm2"])
        util = str(root / "usr/bin/softhsm2-util")
    for name in MODULES:
        if (root / name).exists():
            return Path(util), root / name
    raise FileNotFoundError("libsofthsm2.so")


@dataclass(frozen=True)
class Token:
    """A token called `desk` with two P-256 keys and one P-384 key."""

    home: Path
    module: Path
    environ: dict[str, str]

    def address(self, label: str) -> str:
        pin = self.home / "pin"
        return (
            f"pkcs11:token=desk;object={label}"
            f"?module-path={self.module}&pin-source=file:{pin}"
        )

    def run(
        self, *arguments: str | Path, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(SEALIFT), *map(str, arguments)],
            cwd=self.home,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str | Path, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status).stdout)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    home = tmp_path_factory.mktemp("softhsm")
    util, module = _installed()
    (home / "tokens").mkdir()
    conf = home / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {home / 'tokens'}\nlog.level = ERROR\n")
    environ = {**os.environ, "SOFTHSM2_CONF": str(conf), "PYKCS11LIB": str(module)}
    init = ["--init-token", "--free", "--label", "desk", "--pin", PIN, "--so-pin", PIN]
    subprocess.run(
        [str(util), *init, "--module", str(module)],
        env=environ, check=True, capture_output=True,
    )  # fmt: skip
    for number, (label, curve) in enumerate(
        [("targets", "secp256r1"), ("root", "secp256r1"), ("wrong", "secp384r1")], 1
    ):
        subprocess.run(
            [sys.executable, "-c", MAKE_KEY, str(module), label, str(number), curve],
            env=environ,
            check=True,
        )
    for name, text in (("pin", PIN), ("badpin", "9999"), ("pass", "secret")):
        (home / name).write_text(text + "\n")
        (home / name).chmod(0o600)
    (home / "online").mkdir()
    keys = online.make(home / "online")
    (home / "online-keys.json").write_bytes(online.to_json(keys))
    return Token(home, module, environ)


@pytest.fixture(scope="module")
def desk(token: Token) -> Desk:
    """A desk in which the third root and targets key are on the token."""
    options: list[str] = []
    for label in ("targets", "root"):
        name = f"image-{label}-3"
        out = f"{name}.pub"
        token.run("keys", "check", token.address(label), "--name", name, "--out", out)
        options += ["--external", f"{name}={out}"]
    token.run(
        "init", "desk", "--online", "online-keys.json", "--passphrase-file", "pass",
        *options,
    )  # fmt: skip
    return Desk.open(token.home / "desk")


def test_a_release_with_a_token_among_two_of_three(token: Token, desk: Desk) -> None:
    """One signature by a file, one by the token, and the release is complete."""
    (token.home / "image").write_bytes(b"image" * 4000)
    token.run(
        "release", "pack", "image", "--desk", "desk", "--product", "board",
        "--component", "rootfs", "--version", "1.0.0", "--hardware-id", "r1",
        "--counter", "1", "--out", "rel",
    )  # fmt: skip
    file = ["--key", "desk/keys/image-targets-1.pem", "--passphrase-file", "pass"]
    token.run("release", "sign", "rel", "--desk", "desk", *file)
    found = token.json(
        "release", "sign", "rel", "--desk", "desk", "--key", token.address("targets")
    )
    assert found["complete"]
    assert found["thresholds"][0]["signed"] == ["image-targets-1", "image-targets-3"]


def test_a_new_root_with_a_token_among_two_of_three(token: Token, desk: Desk) -> None:
    """A lost file key is replaced; the token signs for the old Root and the new."""
    token.run(
        "keys", "recover", "desk", "image", "--lost", "image-root-1",
        "--passphrase-file", "pass", "--out", "root.json",
    )  # fmt: skip
    consent = ["--accept", "new-key", "--accept", "removed-key", "--desk", "desk"]
    token.run(
        "release", "sign", "root.json", "--key", "hsm:2?label=desk",
        "--passphrase-file", "pin", *consent,
    )  # fmt: skip
    file = ["--key", "desk/keys/image-root-2.pem", "--passphrase-file", "pass"]
    token.run("release", "sign", "root.json", *file, *consent)
    token.run("keys", "accept", "desk", "root.json")
    store, newest = desk.store("image"), desk.root("image")
    first = read(store.read("1.root.json") or b"", Root).signed
    second = check_next(store.read("2.root.json") or b"", first)
    counted = Letter.open(token.home / "root.json").request.standings()
    signers = {keyid for found in counted for keyid in found.signed}
    schemes = {newest.signed.keys[keyid].scheme for keyid in signers}
    assert second.signed.version == 2
    assert schemes == {"ed25519", "ecdsa-sha2-nistp256"}


# what is wrong → address, exit status, code
REFUSED = {
    "a wrong PIN": ("hsm:1?label=desk", "badpin", 8, "key.passphrase"),
    "no such key": ("hsm:77?label=desk", "pin", 8, "key.unreadable"),
    "no such token": ("hsm:1?label=nobody", "pin", 8, "key.unreadable"),
    "a curve that is not on the list": ("hsm:3?label=desk", "pin", 6, "policy.refused"),
    "no module there": (
        "pkcs11:token=desk?module-path=/nonexistent.so", "pin", 8, "key.unreadable",
    ),
    "a relative module": (
        "pkcs11:token=desk?module-path=libsofthsm2.so", "pin", 2, "config.invalid",
    ),
    "a PIN on the command line": (
        "pkcs11:token=desk?pin-value=1234", "pin", 2, "config.invalid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what: str, token: Token) -> None:
    """Code, hint and exit status; no traceback."""
    address, pin, status, code = REFUSED[what]
    found = token.json(
        "keys", "check", address, "--passphrase-file", pin, status=status
    )
    assert found["error"]["code"] == code
    assert found["error"]["hint"]


def test_a_token_of_another_role_cannot_sign(token: Token, desk: Desk) -> None:
    """The root key on the token is refused for a release."""
    (token.home / "other").write_bytes(b"other" * 4000)
    token.run(
        "release", "pack", "other", "--desk", "desk", "--product", "board",
        "--component", "other", "--version", "1.0.0", "--hardware-id", "r1",
        "--counter", "1", "--out", "rel2",
    )  # fmt: skip
    found = token.json(
        "release", "sign", "rel2", "--desk", "desk", "--key", token.address("root"),
        status=6,
    )  # fmt: skip
    assert found["error"]["code"] == "policy.refused"
    assert "cannot sign image targets" in found["error"]["message"]
