"""One contract per key port over file, TPM and PKCS#11: all back ends, one behaviour."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealift.agent import config, keys, making, settings, wiring
from sealift.agent.__main__ import main
from sealift.agent.config import Tpm
from sealift.agent.seal import Seal
from sealift.agent.storage import ForeignError, Store, claim
from sealift.core import canonical, hpke
from sealift.core.errors import (
    DecryptError,
    InvalidConfigError,
    KeyUnreadableError,
    SealiftError,
    SignatureError,
    TrustAnchorError,
)
from sealift.core.hpke import Recipient
from sealift.core.keys import PublicKey, verify
from tests.bench.token import tokens
from tests.bench.tpm import swtpm

NO_TPM = Tpm(("/nowhere/tpm2",), "device:/dev/null")


@dataclass(frozen=True)
class Places:
    """Where one back end keeps a device's keys; ``absent`` is a place without one."""

    report: str
    decryption: str
    store: str
    absent: str
    tpm: Tpm = NO_TPM

    def made(self) -> making.Facts:
        return making.make(self.report, self.decryption, self.store, "", self.tpm)


Make = Callable[[Path, ExitStack], Places]


def in_files(directory: Path, _: ExitStack) -> Places:
    place = directory / "keys"
    place.mkdir(mode=0o700)
    report, decrypt, store, absent = (
        str(place / name) for name in ("report", "decrypt", "store", "absent")
    )
    return Places(report, decrypt, store, absent)


def in_tpm(_: Path, stack: ExitStack) -> Places:
    found = stack.enter_context(swtpm())
    tpm = Tpm((str(found.command),), found.tcti)
    report, decrypt, store, absent = (f"tpm:0x8101000{n}" for n in (1, 2, 3, 9))
    return Places(report, decrypt, store, absent, tpm)


def in_token(directory: Path, stack: ExitStack) -> Places:
    found = stack.enter_context(tokens(directory / "softhsm"))
    report, decrypt, store, absent = map(
        found.address, ("report", "decrypt", "store", "absent")
    )
    return Places(report, decrypt, store, absent)


@pytest.fixture(params=[in_files, in_tpm, in_token], ids=["file", "tpm", "pkcs11"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    with ExitStack() as stack:
        make: Make = request.param
        yield make(tmp_path, stack)


def test_report_key_signs_what_a_server_verifies(places: Places) -> None:
    """Ten signatures by one key; its id is the digest of what it says of itself."""
    facts = places.made()
    key = keys.report_key(places.report, places.tpm)
    assert facts["report_key"] == key.public()
    digest = hashlib.sha256(canonical.encode(dict(key.public()))).hexdigest()
    assert facts["report_key_id"] == key.key_id == digest
    public = PublicKey.from_json(key.public())
    for number in range(10):
        message = b"report %d" % number
        signature = key.sign(message)
        verify(public, signature, message)
        with pytest.raises(SignatureError):
            verify(public, signature, b"another")


def test_decryption_key_opens_what_is_wrapped_to_it(places: Places) -> None:
    """HPKE with the hardware's Diffie-Hellman; another key and a bad point do not."""
    facts = places.made()
    key = keys.decryption_key(places.decryption, places.tpm)
    recipient = Recipient(key.kem, key.public)
    assert facts["decryption_key"] == recipient.to_json()
    assert facts["kid"] == recipient.kid == keys.kid(key)
    for _ in range(3):
        ephemeral = hpke.new_private(key.kem, os.urandom)
        wrapped = hpke.seal(key.kem, key.public, b"k" * 32, b"info", ephemeral)
        assert hpke.unseal(key.kem, key.public, key.dh, wrapped, b"info") == b"k" * 32
        with pytest.raises(DecryptError):
            hpke.unseal(key.kem, key.public, key.dh, wrapped, b"other")
    with pytest.raises(DecryptError):
        key.dh(b"\x04" + bytes(10))


def test_store_key_is_the_same_again_and_again(places: Places) -> None:
    """32 bytes, the same for every process; what they seal, they open."""
    places.made()
    found = keys.store_key(places.store, places.tpm)
    assert found is not None
    assert len(found) == 32
    assert found != bytes(32)
    assert keys.store_key(places.store, places.tpm) == found
    assert Seal(found).key_id == Seal(keys.store_key(places.store, places.tpm)).key_id


def test_made_twice_is_made_once(places: Places) -> None:
    """What is there is kept, so that a cut in between costs nothing."""
    first = places.made()
    kept = keys.store_key(places.store, places.tpm)
    assert places.made() == first
    assert keys.store_key(places.store, places.tpm) == kept
    kinds = {places.report: keys.kind(places.report)}
    assert first["key_store"] == kinds[places.report]


def test_absent_key_is_named_with_a_hint(places: Places) -> None:
    """No traceback, no other key in its stead: one error and what to do."""
    places.made()
    for use in (
        lambda: keys.report_key(places.absent, places.tpm),
        lambda: keys.decryption_key(places.absent, places.tpm).public,
        lambda: keys.store_key(places.absent, places.tpm),
    ):
        with pytest.raises(KeyUnreadableError) as caught:
            use()
        assert caught.value.message


def test_secrets_are_in_no_fact(places: Places) -> None:
    """What is printed for the server holds no secret."""
    facts = str(places.made())
    found = keys.store_key(places.store, places.tpm)
    assert found is not None
    assert found.hex() not in facts
    assert "PRIVATE" not in facts


# ── files ────────────────────────────────────────────────────────────────────────────
def test_store_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """As every key file (D-10): the hint is the command that repairs it."""
    path = tmp_path / "store"
    making.make("", "", str(path), "", NO_TPM)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(TrustAnchorError) as caught:
        keys.store_key(str(path), NO_TPM)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("content", [b"short\n", b"0" * 63 + b"\n", b"G" * 64])
def test_store_key_file_with_something_else(tmp_path: Path, content: bytes) -> None:
    """64 hex digits, or no key."""
    path = tmp_path / "store"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(KeyUnreadableError):
        keys.store_key(str(path), NO_TPM)


def test_key_files_go_nowhere_else(tmp_path: Path) -> None:
    """A directory that is missing is an error with a hint, never one that is made."""
    with pytest.raises(TrustAnchorError) as caught:
        making.make(str(tmp_path / "nowhere/key"), "", "", "", NO_TPM)
    assert caught.value.hint


@pytest.mark.parametrize(
    "places",
    [
        ("tpm:0x1500016", "", "", ""),
        ("tpm:0x81010001?pcr=7", "", "", ""),
        ("", "", "tpm:0x81010003?pcr=11", ""),
        ("", "", "", "tpm:0x81010001"),
        ("", "", "", "counter.txt"),
    ],
)
def test_wrong_places_are_refused_before_anything_is_made(
    places: tuple[str, str, str, str],
) -> None:
    """A handle is no counter, and PCR 11 is no guard."""
    with pytest.raises(InvalidConfigError):
        making.make(*places, NO_TPM)


# ── D32: tokens ──────────────────────────────────────────────────────────────────────
def refusal(act: Callable[[], object]) -> SealiftError:
    with pytest.raises(SealiftError) as caught:
        act()
    return caught.value


def test_d32_two_tokens_wrong_pin_wrong_id(tmp_path: Path) -> None:
    """Which token has to be said where there are two; each mistake has its words."""
    with tokens(tmp_path / "softhsm") as found:
        good = found.address("report")
        making.make(good, "", "", "", NO_TPM)
        assert keys.report_key(found.address("report", token=""), NO_TPM).key_id

        found.add("second")
        assert keys.report_key(good, NO_TPM).key_id
        several = found.address("report", token="")
        error = refusal(lambda: keys.report_key(several, NO_TPM))
        assert "several tokens" in error.message
        wrong_pin = found.address("report", pin="9999")
        error = refusal(lambda: keys.report_key(wrong_pin, NO_TPM))
        assert (error.code, "9999" in error.message) == ("key.passphrase", True)
        wrong_id = good.replace("object=report", "id=%07")
        error = refusal(lambda: keys.report_key(wrong_id, NO_TPM))
        assert error.code == "key.unreadable"
        assert "there is no key 07 on token device" in error.message
        other = found.address("report", token="third")
        assert refusal(lambda: keys.report_key(other, NO_TPM)).code == "key.unreadable"

        found.pin().chmod(0o644)
        assert refusal(lambda: keys.report_key(good, NO_TPM)).code == "device.trust"


def test_d32_the_last_try_of_a_pin_is_left_to_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that tries again and again would lock the token for good."""
    import pkcs11

    class Token:
        flags = pkcs11.TokenFlag.USER_PIN_FINAL_TRY

        def open(self, **_: object) -> None:
            raise AssertionError("the last try was used")

    class Library:
        def get_token(self, **_: object) -> Token:
            return Token()

    monkeypatch.setattr(pkcs11, "lib", lambda _: Library())
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    pin.write_text("1234")
    address = f"pkcs11:token=t;object=a?module-path=/m.so&pin-source=file:{pin}"
    error = refusal(lambda: keys.report_key(address, NO_TPM))
    assert error.code == "key.passphrase"
    assert "one try" in error.message


def test_an_agent_on_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`keys make` and the configuration by the agent's own command line: keys in a
    token, the state sealed by it.
    """
    with tokens(tmp_path / "softhsm") as found:
        report, store = found.address("report"), found.address("store")
        words = ["keys", "make", "--report-key", report, "--store-key", store, "--json"]
        assert main(words) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["key_store"] == "pkcs11"
        text = settings.example().replace('"keys/report.pem"', f'"{report}"')
        text = text.replace('key = ""', f'key = "{store}"')
        parsed = config.parse(text.encode(), str(tmp_path / "agent.toml"))
        assert (
            keys.report_key(parsed.report_key, NO_TPM).key_id
            == (facts["report_key_id"])
        )
        seal = wiring.seal(parsed)
        place = claim(str(tmp_path / "state"))
        Store(place, seal=seal).commit({"name": b"kept"})
        assert Store(place, seal=wiring.seal(parsed)).read("name") == b"kept"
        with pytest.raises(ForeignError):
            Store(place)
        os.close(place)


@pytest.mark.parametrize(
    "address",
    [
        "pkcs11:object=a",
        "pkcs11:object=a?module-path=/m.so",
        "pkcs11:object=a?module-path=m.so&pin-source=file:/p",
        "pkcs11:object=a?module-path=/m.so&pin-value=1234",
        "pkcs11:token=t?module-path=/m.so&pin-source=/p",
        "pkcs11:object?module-path=/m.so&pin-source=/p",
    ],
)
def test_d32_addresses_without_what_they_need(address: str) -> None:
    """Module and PIN file as absolute names, an object, and never a PIN."""
    assert refusal(lambda: keys.report_key(address, NO_TPM)).code == "config.invalid"


def test_d32_a_p384_key_signs_no_report(tmp_path: Path) -> None:
    """The wrong curve is said at once, not by a server that cannot verify."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    with tokens(tmp_path / "softhsm") as found:
        token = pkcs11.lib(str(found.module)).get_token(token_label="device")
        with token.open(user_pin="1234", rw=True) as session:
            curve = encode_named_curve_parameters("secp384r1")
            made = session.create_domain_parameters(
                pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
            )
            made.generate_keypair(store=True, label="wrong")
        address = found.address("wrong")
        assert "not P-256" in refusal(lambda: keys.report_key(address, NO_TPM)).message
