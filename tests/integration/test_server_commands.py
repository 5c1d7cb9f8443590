"""``sealift device``, ``deployment`` and ``server`` against a running server."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent import config as agent_config
from sealift.agent import identity, making
from sealift.agent.keyfile import FileKey, decryption_key
from sealift.core.types import Artifact
from sealift.repo.entries import Listed
from sealift.sign.release import Release
from tests.bench.tpm import swtpm
from tests.integration.server_process import Caller, RunningServer, made, sealift
from tests.unit.server.test_reports import Voice
from tests.unit.server.world import TestDevice, artifact, container


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[RunningServer]:
    """A running server, a desk's directory with both roots, and a profile."""
    running = made(here / "srv")
    running.start()
    running.publish_roots()
    for repository in ("image", "director"):
        place = here / "desk" / "metadata" / repository
        place.mkdir(parents=True)
        (place / "1.root.json").write_bytes(running.vendor.root(repository))
    (here / "token").write_text(running.token + "\n")
    (here / "token").chmod(0o600)
    profile = here / "profile.toml"
    profile.write_text(
        f'server = "{running.urls["operator"]}"\n'
        'ca = "srv/public/tls-ca.pem"\ntoken_file = "token"\n'
    )
    profile.chmod(0o600)
    yield running
    running.stop()


def run(here: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return sealift(*arguments, "--profile", here / "profile.toml")


def provision(
    here: Path, name: str, *more: str | Path
) -> subprocess.CompletedProcess[str]:
    return run(
        here,
        *("device", "provision", name, "--hardware-id", "demo-board-r1"),
        *("--desk", here / "desk", "--out", here / name, *more),
    )


def test_provisioned_directory_is_all_an_agent_needs(
    server: RunningServer, here: Path
) -> None:
    """The agent's own reader takes it; modes are right; the certificate lets it in."""
    done = provision(here, "dev-0001", "--ecu", "dev-0001-os")
    assert done.returncode == 0, done.stderr
    out = here / "dev-0001"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()}
    assert modes == {
        "agent.toml": 0o600,
        "device.key": 0o600,
        "report.key": 0o600,
        "decrypt.key": 0o600,
        "device.pem": 0o644,
        "tls-ca.pem": 0o444,
        "image-root.json": 0o444,
        "director-root.json": 0o444,
    }
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    found = agent_config.load(str(out / "agent.toml"))
    assert found.device_id == "dev-0001"
    assert found.server.url == server.urls["device"]
    assert [c.ecu_id for c in found.components] == ["dev-0001-os"]
    assert not found.demo_keys
    assert (out / "image-root.json").read_bytes() == (
        here / "desk/metadata/image/1.root.json"
    ).read_bytes()
    device = TestDevice("dev-0001", {})
    caller = Caller(server, device, out / "device.pem", out / "device.key")
    _, body = caller.ask("/director/metadata/timestamp.json")
    assert json.loads(body)["signed"]["device_id"] == "dev-0001"
    with server.operator() as operator:
        known = operator.device("dev-0001")
    assert known["report_key_id"] == FileKey(found.report_key).key_id
    own = decryption_key(found.decryption_key).recipient
    registered = known["device"]["decryption_key"]
    assert registered is not None
    assert (registered["kem"], registered["kid"]) == (own.kem, own.kid)


def test_device_with_keys_of_its_own(server: RunningServer, here: Path) -> None:
    """In its TPM: the server learns their public halves, and no secret is made here."""
    places = ("tpm:0x81010001", "tpm:0x81010002", "tpm:0x81010003", "tpm:0x1500016")
    with swtpm() as tpm:
        reached = agent_config.Tpm((str(tpm.command),), tpm.tcti)
        facts = making.make(*places, reached)
    told = here / "keys.json"
    told.write_text(json.dumps(facts))
    done = provision(here, "dev-tpm", "--keys", told)
    assert done.returncode == 0, done.stderr
    out = here / "dev-tpm"
    assert {path.name for path in out.glob("*.key")} == {"device.key"}
    found = agent_config.load(str(out / "agent.toml"))
    [part] = found.components
    named = (found.report_key, found.decryption_key, found.state_key, part.counter)
    assert named == places
    with server.operator() as operator:
        known = operator.device("dev-tpm")
    assert known["report_key_id"] == facts["report_key_id"]
    registered = known["device"]["decryption_key"]
    assert registered is not None
    assert (registered["kem"], registered["kid"]) == ("p256", facts["kid"])


@pytest.mark.parametrize(
    "told",
    [
        "{}",
        "no JSON",
        '{"report_key": {"keytype": "hmac"}, "places": {"report_key": "tpm:0x1"}}',
    ],
)
def test_keys_that_say_nothing(server: RunningServer, here: Path, told: str) -> None:
    """Refused before anything is made or enrolled."""
    (here / "none.json").write_text(told)
    done = provision(here, "dev-none", "--keys", here / "none.json")
    assert "[config.invalid]" in done.stderr
    assert "keys make" in done.stderr
    assert not (here / "dev-none").exists()


def release(directory: Path, image: Artifact) -> Path:
    """What a release directory says of its image."""
    directory.mkdir(exist_ok=True)
    facts = Release(Listed(image, 1), container(image.version)[0]).to_json()
    (directory / "release.json").write_text(json.dumps(facts))
    return directory


@pytest.mark.parametrize("name", [".", "release.json"])
def test_factory_image_is_written_for_the_agent(
    server: RunningServer, here: Path, name: str
) -> None:
    """The agent reads what the release says, by its own strict reader."""
    image = artifact("1.0.0", 7)
    where = release(here / "rel", image) / name
    device = f"dev-made-{len(name)}"
    done = provision(here, device, "--factory", where)
    assert done.returncode == 0, done.stderr
    [part] = agent_config.load(str(here / device / "agent.toml")).components
    assert part.factory == str(here / device / "factory-image.json")
    assert stat.S_IMODE(Path(part.factory).stat().st_mode) == 0o444
    assert identity.factory_image(part) == image


@pytest.mark.parametrize(
    ("sentence", "arguments", "code"),
    [
        ("the id exists", ["--out", "other"], "input.conflict"),
        ("the directory exists", [], "config.invalid"),
        ("anchors twice", ["--out", "x", "--image-root", "y"], "config.invalid"),
        (
            "two components",
            ["--out", "x", "--ecu", "a", "--ecu", "b"],
            "config.invalid",
        ),
        ("no release", ["--out", "x", "--factory", "nowhere"], "config.invalid"),
        ("other hardware", ["--out", "x", "--factory", "rel-other"], "config.invalid"),
    ],
)
def test_provisioning_that_cannot_be(
    server: RunningServer, here: Path, sentence: str, arguments: list[str], code: str
) -> None:
    """A refusal leaves no directory behind, and no device at the server."""
    release(here / "rel-other", artifact("1.0.0", hardware="another-board"))
    if not (here / "dev-twice").exists():
        assert provision(here, "dev-twice").returncode == 0
    places = {"other", "x", "nowhere", "rel-other"}
    more = [str(here / a) if a in places else a for a in arguments]
    before = sorted(path.name for path in here.iterdir())
    done = provision(here, "dev-twice", *more)
    assert f"[{code}]" in done.stderr, sentence
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in here.iterdir()) == before


def test_anchors_must_be_roots(server: RunningServer, here: Path) -> None:
    """A desk without roots, and files that are none, are no trust anchors."""
    (here / "empty").mkdir()
    bad = here / "bad.json"
    bad.write_text('{"signed": {"_type": "targets"}}')
    base = (
        "device",
        "provision",
        "dev-bad",
        "--hardware-id",
        "h",
        "--out",
        here / "bad",
    )
    for anchors in (
        ("--desk", here / "empty"),
        ("--image-root", bad, "--director-root", bad),
        ("--image-root", here / "none.json", "--director-root", bad),
    ):
        done = run(here, *base, *anchors)
        assert (done.returncode, "[device.trust]" in done.stderr) == (5, True)
    assert not (here / "bad").exists()


def test_deployment_is_followed_to_its_end(server: RunningServer, here: Path) -> None:
    """Create --watch returns when the device has reported; list and show agree."""
    server.release("1.0.0", 1, here)
    caller = server.device(here, "dev-watch")
    made = run(
        here,
        *("deployment", "create", "--release", "demo-board-1.0.0"),
        *("--device", "dev-watch", "--reason", "first", "--json"),
    )
    assert made.returncode == 0, made.stderr
    deployment = json.loads(made.stdout)["deployment"]["id"]
    caller.ask("/director/metadata/timestamp.json")
    voice = Voice(caller.device, runs=artifact("1.0.0"))
    assert caller.ask("/director/manifest", "POST", voice.report())[0].status == 200
    shown = run(here, "deployment", "show", deployment, "--watch")
    assert shown.returncode == 0, shown.stderr
    assert "1 succeeded" in shown.stdout
    listed = json.loads(run(here, "deployment", "list", "--json").stdout)
    assert [(d["id"], d["state"]) for d in listed] == [(deployment, "completed")]
    device = run(here, "device", "show", "dev-watch")
    assert "1.0.0" in device.stdout
    again = run(here, "deployment", "create", "--release", "demo-board-1.0.0", "--all")
    rows = json.loads(run(here, "device", "list", "--json").stdout)
    assert {row["id"] for row in rows} >= {"dev-watch"}
    assert again.returncode in {0, 7}
    aborted = run(here, "deployment", "abort", deployment)
    assert (aborted.returncode, "[input.conflict]" in aborted.stderr) == (7, True)


@pytest.mark.parametrize(
    ("sentence", "arguments", "status", "code"),
    [
        (
            "nobody named",
            ["deployment", "create", "--release", "x"],
            2,
            "config.invalid",
        ),
        (
            "no such release",
            ["deployment", "create", "--release", "x", "--all"],
            7,
            "input.not_found",
        ),
        ("no such device", ["device", "show", "nobody"], 7, "input.not_found"),
        ("a climbing id", ["device", "show", "../status"], 7, "input.not_found"),
        ("no consent to revoke", ["device", "revoke", "nobody"], 2, "config.invalid"),
        ("revoke whom?", ["device", "revoke", "nobody", "--yes"], 7, "input.not_found"),
    ],
)
def test_errors_have_code_and_status(
    server: RunningServer,
    here: Path,
    sentence: str,
    arguments: list[str],
    status: int,
    code: str,
) -> None:
    """Each refusal is one line with a code, and the exit status of its family."""
    done = run(here, *arguments)
    assert (done.returncode, f"[{code}]" in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    as_json = run(here, *arguments, "--json")
    assert json.loads(as_json.stdout)["error"]["code"] == code


def test_revocation(server: RunningServer, here: Path) -> None:
    """``device revoke --yes`` ends a device's access."""
    caller = server.device(here, "dev-gone")
    assert run(here, "device", "revoke", "dev-gone", "--yes").returncode == 0
    assert caller.ask("/director/metadata/timestamp.json")[0].status == 403


def test_status_of_a_running_server(server: RunningServer) -> None:
    """``server status`` looks at the directory and disturbs nobody."""
    done = sealift("server", "status", server.directory, "--json")
    found = json.loads(done.stdout)
    assert (found["image_root"], found["director_root"]) == (1, 1)
    assert found["audit_leaves"] > 0


def test_a_token_for_somebody_else(server: RunningServer, here: Path) -> None:
    """Made, kept in a file of its own, used for what it allows and nothing else."""
    out = here / "ci.token"
    words = ("token", "create", "ci", "--role", "releaser", "--days", "3")
    done = run(here, *words, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    made_token = json.loads(done.stdout)
    assert (made_token["secret"], made_token["roles"]) == (None, ["releaser"])
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    own = ("--token-file", out)
    who = json.loads(run(here, "token", "whoami", *own, "--json").stdout)
    assert (who["name"], who["expires_at"]) == ("ci", made_token["expires_at"])
    assert "release.publish" in who["permissions"]
    assert run(here, "deployment", "list", *own).returncode == 0
    refused = run(here, "device", "revoke", "dev-0001", "--yes", *own)
    assert refused.returncode != 0
    assert "needs the permission device.revoke" in refused.stderr
    done = run(here, "token", "revoke", "ci", "--reason", "sold", "--json")
    assert json.loads(done.stdout)["revoked_at"]
    refused = run(here, "deployment", "list", *own)
    assert "was revoked" in refused.stderr
    listed = json.loads(run(here, "token", "list", "--json").stdout)
    assert [token["name"] for token in listed] == ["ci", "operator"]
    assert "ci" in run(here, "token", "list").stdout


def test_a_token_is_not_written_over_a_file(server: RunningServer, here: Path) -> None:
    """Asked before it is made: a token that was made and lost would help nobody."""
    out = here / "taken"
    out.write_text("mine")
    words = ("token", "create", "cd", "--role", "viewer", "--out", out)
    assert run(here, *words).returncode != 0
    assert out.read_text() == "mine"
    names = [t["name"] for t in json.loads(run(here, "token", "list", "--json").stdout)]
    assert "cd" not in names
