"""The real agent in bad surroundings: a message with code and hint, nothing half-done."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealift.core.types import Slot
from tests.integration.agent_world import AGENT, ECU, World, world

IDLE = f"state component={ECU} state=idle"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        (found.device.boot / "running").write_text("slot=a\nboot_id=1-aa\n")
        yield found


# ── bad files ────────────────────────────────────────────────────────────────────────
def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00{[" * 50)


def open_up(path: Path) -> None:
    path.chmod(0o666)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


TROUBLES = [
    ("agent.toml", remove, "config.invalid", 2),
    ("agent.toml", empty, "config.invalid", 2),
    ("agent.toml", garbage, "config.invalid", 2),
    ("agent.toml", open_up, "device.trust", 5),
    ("ca.pem", remove, "config.invalid", 2),
    ("ca.pem", garbage, "config.invalid", 2),
    ("device.pem", garbage, "key.unreadable", 8),
    ("keys/tls.pem", remove, "key.unreadable", 8),
    ("keys/tls.pem", garbage, "key.unreadable", 8),
    ("keys/tls.pem", open_up, "device.trust", 5),
    ("keys/report.pem", remove, "key.unreadable", 8),
    ("keys/report.pem", garbage, "key.unreadable", 8),
    ("keys/report.pem", open_up, "device.trust", 5),
    ("anchors/image.root.json", remove, "device.trust", 5),
    ("anchors/image.root.json", empty, "device.trust", 5),
    ("anchors/director.root.json", open_up, "device.trust", 5),
    ("anchors/director.root.json", link, "device.trust", 5),
]


@pytest.mark.parametrize(
    ("name", "spoil", "code", "status"),
    TROUBLES,
    ids=[f"{name} {spoil.__name__}" for name, spoil, _, _ in TROUBLES],
)
def test_b14_bad_file_is_refused_by_code_and_nothing_is_installed(
    here: World, name: str, spoil: Callable[[Path], None], code: str, status: int
) -> None:
    """One line with the code, the documented status, no traceback, both slots untouched."""
    here.publish("1.0.0", 1)
    before = here.device.slot(Slot.B)
    spoil(here.device.directory / name)
    found = here.device.run("check")
    assert found.returncode == status, found.stderr
    assert f"[{code}]" in found.stderr
    assert "Traceback" not in found.stderr
    assert here.device.slot(Slot.B) == before
    assert here.server.reports == []


@pytest.mark.parametrize(
    ("spoil", "code", "status"),
    [(remove, "key.unreadable", 8), (open_up, "device.trust", 5)],
    ids=["remove", "open_up"],
)
def test_c7_spoilt_decryption_key_is_told_and_stops_no_report(
    here: World, spoil: Callable[[Path], None], code: str, status: int
) -> None:
    """`config-check` refuses it; an agent goes on without and reports no key."""
    good = here.device.run("config-check", "--json")
    kid = here.device.decryption_key.recipient.kid
    assert json.loads(good.stdout)["decryption_key_id"] == kid
    here.publish("1.0.0", 1)
    spoil(here.device.directory / "keys/decrypt.pem")
    found = here.device.run("config-check")
    assert (found.returncode, "Traceback" in found.stderr) == (status, False)
    assert f"[{code}]" in found.stderr
    assert here.device.run("check").returncode == 75  # installed, and goes down
    told = [report["payload"] for report in here.server.reports]
    assert {report["kid"] for report in told} == {None}
    assert "cobblestone-256" in told[0]["abilities"]


def test_errors_are_one_json_value_when_asked(here: World) -> None:
    """`--json` holds for errors, too."""
    here.device.config.write_text("nonsense = 1\n")
    found = here.device.run("status", "--json")
    assert found.returncode == 2
    assert json.loads(found.stdout)["error"]["code"] == "config.invalid"


# ── bad places ───────────────────────────────────────────────────────────────────────
def test_state_directory_that_cannot_be_made_is_device_state(here: World) -> None:
    """A read-only place: the code, and the device is as it was."""
    text = here.device.config.read_text()
    here.device.config.write_text(text.replace('"state"', '"/sys/sealift"'))
    found = here.device.run("check")
    assert found.returncode == 5
    assert "[device.state]" in found.stderr


def limited(command: list[str], most: int) -> subprocess.CompletedProcess[str]:
    """A command whose files may not grow beyond ``most`` bytes: a full disk."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )


@pytest.mark.parametrize("most", [0, 1000, 5000, 100_000])
def test_full_disk_is_device_space_and_leaves_nothing_half_done(
    here: World, most: int
) -> None:
    """Wherever room ends, the code says so, and with room again the update completes."""
    here.publish("1.0.0", 1)
    command = [*AGENT, "check", "--config", str(here.device.config)]
    found = limited(command, most)
    assert found.returncode in {5, 75}, found.stderr
    assert "device.space" in found.stderr + found.stdout
    assert "Traceback" not in found.stderr
    assert here.device.confirmed is Slot.A
    here.publish("1.0.1", 2)
    assert here.device.run("check").returncode == 75


def test_d17_second_agent_is_busy(here: World) -> None:
    """One agent per state directory; reading goes on beside it."""
    here.device.start()
    here.device.wait("info wait")
    found = here.device.run("check")
    assert (found.returncode, "[device.busy]" in found.stderr) == (5, True)
    second = here.device.run("run")
    assert (second.returncode, "[device.busy]" in second.stderr) == (5, True)
    assert here.device.run("status").returncode == 0
    assert here.device.run("history").returncode == 0


def test_any_damaged_file_of_the_state_does_not_stop_updates(
    here: World, tmp_path: Path
) -> None:
    """One flipped bit in any file of the state: the next check is whole again (E6)."""
    here.publish("1.0.0", 1)
    here.device.start()
    here.device.wait(IDLE)
    here.device.wait("info wait")
    here.device.close()
    here.server.report_status = 503
    here.device.run("check")  # leaves reports that wait
    here.server.report_status = 200
    kept = tmp_path / "kept"
    shutil.copytree(here.device.state, kept)
    for path in sorted(kept.iterdir()):
        shutil.rmtree(here.device.state)
        shutil.copytree(kept, here.device.state)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        (here.device.state / path.name).write_bytes(raw)
        here.vendor.refresh(anew=True)
        found = here.device.run("check")
        assert found.returncode == 0, (path.name, found.stderr)
        assert here.device.json("status")["trusted_versions"]["director"]["targets"]


# ── wrong clock ──────────────────────────────────────────────────────────────────────
def at(year: int) -> list[str]:
    """The agent, in a machine that believes in another year."""
    program = (
        "import sys; from datetime import UTC, datetime\n"
        "from sealift.agent import clock\n"
        f"clock.SystemClock.now = lambda self: datetime({year}, 1, 2, tzinfo=UTC)\n"
        "from sealift.agent.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    return [sys.executable, "-I", "-c", program]


@pytest.mark.parametrize(("year", "source"), [(1970, "metadata"), (2100, "metadata")])
def test_wrong_clock_neither_stops_updates_nor_is_believed(
    here: World, year: int, source: str
) -> None:
    """1970 and 2100: the time floor carries on, and the status says where it is from."""
    here.publish("1.0.0", 1)
    here.device.start(at(year))
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
    status = subprocess.run(
        [*at(year), "status", "--json", "--config", str(here.device.config)],
        capture_output=True,
        text=True,
        check=True,
    )
    versions = json.loads(status.stdout)["trusted_versions"]
    assert versions["time_source"] == source
    assert versions["now"].startswith("20")
    assert not versions["now"].startswith("2100")


# ── surroundings ─────────────────────────────────────────────────────────────────────
def test_d12_environment_has_no_influence(here: World, tmp_path: Path) -> None:
    """Foreign modules, proxies and loader variables are dropped; nothing of them runs."""
    evil, marker = tmp_path / "evil", tmp_path / "ran"
    evil.mkdir()
    for name in ("tomllib", "http", "ssl", "argparse"):
        (evil / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    here.publish("1.0.0", 1)
    variables = {
        "PYTHONPATH": str(evil),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "TMPDIR": str(evil),
        "SSL_CERT_FILE": "/nowhere",
        "OPENSSL_CONF": str(evil / "openssl.cnf"),
        "PATH": str(evil),
    }
    found = subprocess.run(
        [*AGENT, "check", "--config", str(here.device.config)],
        capture_output=True,
        text=True,
        check=False,
        env=variables,
    )
    assert found.returncode == 75, found.stderr
    assert not marker.exists()


def test_d12_agent_started_without_isolation_starts_itself_again(
    here: World, tmp_path: Path
) -> None:
    """Without ``-I`` a module path is noticed and the agent begins anew without it."""
    evil, marker = tmp_path / "evil", tmp_path / "ran"
    evil.mkdir()
    (evil / "tomllib.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    command = [sys.executable, "-m", "sealift.agent", "config-check"]
    found = subprocess.run(
        [*command, "--config", str(here.device.config)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PYTHONPATH": str(evil)},
    )
    assert found.returncode == 0, found.stderr
    assert not marker.exists()


def sockets(pid: int) -> list[tuple[str, str]]:
    """Table and state of each internet socket of a process; none once it has ended."""
    try:
        own = {
            str(descriptor.readlink())[8:-1]
            for descriptor in Path(f"/proc/{pid}/fd").iterdir()
            if str(descriptor.readlink()).startswith("socket:[")
        }
        return [
            (table, words[3])
            for table in ("tcp", "tcp6", "udp", "udp6")
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            if (words := line.split())[9] in own
        ]
    except OSError:
        return []


def test_d11_agent_listens_nowhere(here: World) -> None:
    """No process of the agent has a listening TCP or any UDP socket, ever."""
    here.server.pace = 0.01
    here.publish("1.0.0", 1)
    here.device.start()
    seen, until = 0, time.monotonic() + 40
    while IDLE not in here.device.log and time.monotonic() < until:
        for pid in here.device.agents():
            for table, state in sockets(pid):
                seen += 1
                assert table.startswith("tcp")
                assert state != "0A", "a listener"
    assert seen, "the agent's own connections were seen"


def hears(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal already."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", text, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def test_d17_signal_storm_changes_nothing(here: World) -> None:
    """Hints by the hundred during an install: one journal, one install."""
    here.server.pace = 0.005
    here.publish("1.0.0", 1)
    here.device.start()
    here.device.wait("info start")
    until = time.monotonic() + 40
    while IDLE not in here.device.log and time.monotonic() < until:
        for pid in here.device.agents()[:1]:  # the one that `status` names
            if hears(pid, signal.SIGUSR1):
                os.kill(pid, signal.SIGUSR1)
    assert here.device.log.count("state=staging") == 1
    assert here.device.confirmed is Slot.B


def test_content_that_is_gone_fails_after_three_new_offers(here: World) -> None:
    """404 for the container: asked for four times, a poll before each; then reported."""
    release = here.publish("1.0.0", 1)
    del here.vendor.containers[release.path]
    here.device.start()
    here.device.wait("verdict=failed")
    here.device.wait(IDLE)
    assert here.server.asked.count(release.path) == 4
    [told] = [it for it in here.device.json("history") if it["kind"] == "install"]
    found = (told["verdict"], told["code"], told["stage"])
    assert found == ("failed", "input.not_found", "staging")
