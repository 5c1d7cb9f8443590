"""EST as others speak it: curl, OpenSSL, and strongSwan's ``pki``.

Clients come from the machine if it has them, else ``tools.debs`` unpacks them.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from sealift.server.adapters import ca
from sealift.server.app import SystemClock
from tests.integration.server_process import Caller, RunningServer, code_of, made
from tests.unit.server.world import TestDevice
from tools.debs import DEBS, fetch

PKI = (
    "strongswan-pki",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
    "libcharon-extra-plugins",
)
EST = "/.well-known/est"
REQUEST = {"Content-Type": "application/pkcs10"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("est")


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[RunningServer]:
    running = made(here / "srv")
    running.start()
    yield running
    running.stop()


def asleep(server: RunningServer, here: Path, name: str, days: int) -> Caller:
    """A device whose certificate ended so many days ago, in the server's books too."""
    caller = server.device(here, name)
    pem = server.reissue(name, caller.device.csr, 90 + days)
    assert caller.certificate is not None
    caller.certificate.write_text(pem)
    return caller


def curl(
    server: RunningServer, place: str, *words: str | Path, listener: str = "enrol"
) -> tuple[int, bytes]:
    """The status and the body."""
    program = shutil.which("curl") or str(fetch(["curl"]) / "usr/bin/curl")
    done = subprocess.run(
        [
            *(program, "--silent", "--show-error", "--cacert", str(server.ca)),
            *map(str, words),
            *("--write-out", "%{http_code}", server.urls[listener] + EST + place),
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        return 0, done.stderr
    return int(done.stdout[-3:]), done.stdout[:-3]


def credentials(caller: Caller) -> tuple[str | Path, ...]:
    assert caller.certificate is not None
    assert caller.key is not None
    return ("--cert", caller.certificate, "--key", caller.key)


def body_of(here: Path, device: TestDevice) -> tuple[str | Path, ...]:
    """A request as EST wants it, as options of curl."""
    request = x509.load_pem_x509_csr(device.csr)
    path = here / f"{device.id}.b64"
    path.write_bytes(base64.encodebytes(request.public_bytes(Encoding.DER)))
    return ("--header", "Content-Type: application/pkcs10", "--data-binary", f"@{path}")


def certificate_in(body: bytes) -> x509.Certificate:
    assert b"\n" not in body  # strongSwan takes one line only
    (found,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    return found


def test_cacerts_are_for_everybody(server: RunningServer) -> None:
    """Without a certificate: who signs devices, as PKCS #7 that OpenSSL reads."""
    status, body = curl(server, "/cacerts")
    assert status == 200
    done = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs", "-noout"],
        input=base64.b64decode(body),
        capture_output=True,
        check=True,
    )
    assert b"Sealift devices" in done.stdout
    assert curl(server, "/csrattrs") == (204, b"")
    for place in ("/serverkeygen", "/fullcmc", "/../status", "/"):
        assert curl(server, place)[0] == 404


@pytest.mark.parametrize("listener", ["device", "enrol"])
def test_a_device_renews_with_curl(
    server: RunningServer, here: Path, listener: str
) -> None:
    """On the listener it uses anyway, and on the one for enrolment."""
    caller = server.device(here, f"dev-{listener}")
    wanted = TestDevice(caller.device.id, {})
    words = (*credentials(caller), *body_of(here, wanted))
    status, body = curl(server, "/simplereenroll", *words, listener=listener)
    assert status == 200, body
    found = certificate_in(body)
    assert found.public_key() == wanted.tls_key.public_key()
    again = curl(server, "/simplereenroll", *words, listener=listener)
    assert certificate_in(again[1]) == found  # a lost answer is given once more


def test_who_shows_nothing_gets_nothing(server: RunningServer, here: Path) -> None:
    """No certificate, another authority's, a header: refused, in our words or TLS's."""
    wanted = TestDevice("dev-nobody", {})
    words = body_of(here, wanted)
    status, body = curl(server, "/simplereenroll", *words)
    assert (status, code_of(body)) == (401, "auth.required")
    spoofed = ("--header", "X-SSL-Client-Cert: dev-0001")
    assert curl(server, "/simplereenroll", *words, *spoofed)[0] == 400
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = ca.make_authority("dev-0001", key, SystemClock().now())
    (here / "foreign.pem").write_bytes(foreign.public_bytes(Encoding.PEM))
    (here / "foreign.key").write_bytes(ca.private_pem(key))
    mine = ("--cert", here / "foreign.pem", "--key", here / "foreign.key")
    status, said = curl(server, "/simplereenroll", *words, *mine)
    assert status == 0, said  # the handshake already


def test_a_device_that_slept_for_a_year_comes_back(
    server: RunningServer, here: Path
) -> None:
    """Refused by the device listener's handshake, renewed where enrolment is done."""
    sleeper = asleep(server, here, "dev-year", 365)
    wanted = TestDevice("dev-year", {})
    words = (*credentials(sleeper), *body_of(here, wanted))
    assert curl(server, "/simplereenroll", *words, listener="device")[0] == 0
    status, body = curl(server, "/simplereenroll", *words)
    assert status == 200, body
    assert certificate_in(body).not_valid_after_utc > SystemClock().now()


def test_E03_a_revoked_one_does_not(server: RunningServer, here: Path) -> None:
    """Within one request, on either listener, expired or not."""
    sleeper = asleep(server, here, "dev-gone", 30)
    with server.operator() as operator:
        operator.revoke("dev-gone", "stolen")
    wanted = TestDevice("dev-gone", {})
    words = (*credentials(sleeper), *body_of(here, wanted))
    status, body = curl(server, "/simplereenroll", *words)
    assert (status, code_of(body)) == (403, "identity.revoked")


def test_bad_bodies(server: RunningServer, here: Path) -> None:
    """Not base64, nothing, too much, no request: an error of ours each time."""
    caller = server.device(here, "dev-bad")
    for body, status in (("%%%", 422), ("", 422), ("QUJD", 422), ("A" * 20_000, 413)):
        path = here / "bad.b64"
        path.write_text(body)
        words = (*credentials(caller), "--data-binary", f"@{path}")
        assert curl(server, "/simplereenroll", *words)[0] == status, body[:10]


# ── strongSwan ───────────────────────────────────────────────────────────────────────
def pki(*words: str | Path) -> bytes:
    """Debian's ``pki``. It looks for its plugins below /usr and nowhere else, so what was
    unpacked is laid over /usr, for this program only.
    """
    command = ["pki", *map(str, words)]
    environ = dict(os.environ)
    if shutil.which("pki") is None:
        lay = f"mount -t overlay overlay -o lowerdir={fetch(PKI)}/usr:/usr /usr"
        apart = ("unshare", "--user", "--map-root-user", "--mount")
        command = [*apart, "sh", "-c", f'{lay} && exec "$@"', "sh", *command]
        settings = DEBS.with_name("strongswan.conf")
        settings.write_text(
            "pki {\n  load = pem pkcs1 pkcs7 pkcs8 x509 pubkey openssl curl nonce random sha1 sha2 gcm aes hmac kdf constraints revocation\n}\n"
        )
        environ["STRONGSWAN_CONF"] = str(settings)
    done = subprocess.run(
        command, env=environ, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2000:]
    return done.stdout


def test_strongswan_renews(server: RunningServer, here: Path) -> None:
    """Pki --estca and pki --est, as its manual has them."""
    caller = server.device(here, "dev-swan")
    url = ("--url", server.urls["enrol"])
    anchors = here / "est-ca.pem"
    pki("--estca", *url, "--cacert", server.ca, "--caout", anchors, "--outform", "pem")
    wanted = TestDevice("dev-swan", {})
    request = here / "swan.der"
    request.write_bytes(x509.load_pem_x509_csr(wanted.csr).public_bytes(Encoding.DER))
    found = pki(
        *("--est", *url, "--cacert", server.ca, "--cacert", anchors),
        *(*credentials(caller), "--in", request, "--outform", "pem"),
    )
    issued = x509.load_pem_x509_certificate(found)
    assert issued.public_key() == wanted.tls_key.public_key()
    assert issued.subject.rfc4514_string() == "CN=dev-swan"
