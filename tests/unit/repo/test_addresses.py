"""Key addresses: which signer an address means, and what it may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.core.errors import InvalidConfigError, KeyUnreadableError
from sealift.repo import keyfile
from sealift.repo.signers import load_signer, save
from sealift.repo.token import Address, parse_short, parse_uri

MODULE = {"PYKCS11LIB": "/lib/module.so"}

# address → what it means
URIS = [
    ("token=desk", Address("/lib/module.so", token="desk")),
    ("token=my%20desk;id=%01%0A", Address("/lib/module.so", "my desk", key_id=b"\1\n")),
    (
        "object=release?module-path=/m.so&pin-source=file:/run/pin",
        Address("/m.so", label="release", pin_source=Path("/run/pin")),
    ),
    ("serial=1234;type=private", Address("/lib/module.so", serial="1234")),
]


@pytest.mark.parametrize(("rest", "meant"), URIS)
def test_pkcs11_addresses(rest: str, meant: Address) -> None:
    """RFC 7512: path attributes by semicolon, query attributes by ampersand."""
    assert parse_uri(rest, MODULE) == meant


SHORT = [
    ("", Address("/lib/module.so", key_id=b"\2")),
    ("1", Address("/lib/module.so", key_id=b"\1")),
    ("300?label=a+b", Address("/lib/module.so", "a b", key_id=b"\1\x2c")),
]


@pytest.mark.parametrize(("rest", "meant"), SHORT)
def test_short_addresses(rest: str, meant: Address) -> None:
    """A decimal key id, the token's label; slot 9c without one."""
    assert parse_short(rest, MODULE) == meant


REFUSED = [
    "token=desk?pin-value=1234",
    "token",
    "colour=red",
    "token=desk?module-path=relative.so",
]


@pytest.mark.parametrize("rest", REFUSED)
def test_addresses_that_are_refused(rest: str) -> None:
    """A secret, an unknown attribute, a library found by chance."""
    with pytest.raises(InvalidConfigError):
        parse_uri(rest, MODULE)


@pytest.mark.parametrize("rest", ["abc", "1;2", "-1"])
def test_short_addresses_begin_with_a_number(rest: str) -> None:
    """Anything else is told."""
    with pytest.raises(InvalidConfigError):
        parse_short(rest, MODULE)


def test_without_a_module_nothing_is_loaded() -> None:
    """The hint says where to name it."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_uri("token=desk", {})
    assert "PYKCS11LIB" in str(caught.value.hint)


@pytest.mark.parametrize("prefix", ["", "file:", "file://"])
def test_file_addresses(prefix: str, tmp_path: Path) -> None:
    """A path alone, or with its kind in front."""
    path = tmp_path / "key.pem"
    save(path, keyfile.generate("ed25519"), None)
    assert load_signer(f"{prefix}{path}").public_key.scheme == "ed25519"


@pytest.mark.parametrize("address", ["", "awskms:x", "http://host/key", "file:"])
def test_other_addresses_are_errors_of_ours(address: str) -> None:
    """What is no kind we know is looked for as a file, and is none."""
    with pytest.raises(KeyUnreadableError):
        load_signer(address)
