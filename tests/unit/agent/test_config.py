"""The configuration: strict, documented setting by setting, and nobody else's to write."""

from __future__ import annotations

import os
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from sealift.agent import config, gate, settings, wiring
from sealift.core.errors import InvalidConfigError, LimitError, TrustAnchorError

ROOT = Path(__file__).resolve().parents[3]
WHERE = "/etc/sealift/agent.toml"


def changed(old: str, new: str) -> bytes:
    text = settings.example()
    assert old in text
    return text.replace(old, new, 1).encode()


def test_example_is_complete_and_valid() -> None:
    """The example made from the table is a configuration, with every setting in it."""
    found = config.parse(settings.example().encode(), WHERE)
    assert found.device_id == "dev-0001"
    assert found.components[0].slots == (
        "/etc/sealift/slot-a.img",
        "/etc/sealift/slot-b.img",
    )
    assert found.health[0].command == ("/usr/bin/true",)
    for setting in settings.SETTINGS:
        assert f"\n{setting.name} = " in settings.example()


def test_defaults_are_what_the_example_shows() -> None:
    """Leaving every optional setting out gives the same configuration."""
    short, section = [], ""
    for line in settings.example().splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        setting = settings.of(section).get(line.split(" = ")[0])
        if setting is None or setting.default is settings.REQUIRED:
            short.append(line)
    full = config.parse(settings.example().encode(), WHERE)
    assert config.parse("\n".join(short).encode(), WHERE) == full


def test_manual_lists_every_setting() -> None:
    """The table in the manual is the table of the code."""
    manual = (ROOT / "docs/agent.md").read_text()
    assert settings.table() in manual


def test_relative_names_belong_to_the_file() -> None:
    """A relative file name is relative to the configuration, not to the caller."""
    found = config.parse(changed('"ca.pem"', '"../ca.pem"'), WHERE)
    assert found.server.ca == "/etc/ca.pem"
    assert found.state == "/var/lib/sealift"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("poll_seconds", "pol_seconds", "setting in [server]", "poll_seconds?"),
        ("[trust]", "[thrust]", "unknown section", "trust?"),
        ("poll_seconds = 900", "poll_seconds = 0", "number from 1 to 86400", None),
        ("poll_seconds = 900", "poll_seconds = true", "number from 1", None),
        ("poll_seconds = 900", "poll_seconds = nan", "number from 1", None),
        ("https://", "http://", "https://", None),
        ("https://updates", "https://user@updates", "blank", None),
        ('"https://updates.example:8443"', "8443", "printable", None),
        ('id = "dev-0001"', "", "[device] id is missing", None),
        ('id = "dev-0001"', 'id = "a\\nb"', "printable", None),
        ('["/usr/bin/true"]', '"/usr/bin/true"', "list of texts", None),
        ('["/usr/bin/true"]', '["true"]', "absolute path", None),
        ('b = "slot-b.img"', 'b = "slot-a.img"', "one place twice", None),
        ('a = "slot-a.img"', 'c = "slot-a.img"', "exactly a and b", None),
        ("[[component]]", "[component]", "[[component]]", None),
        ('kind = "file"', 'kind = "lilo"', "one of: file", None),
        ("[device]", "[device", "is not TOML", "docs/agent.md"),
        ("minimum_rate = 1024", "minimum_rate = 63", "64 to", None),
        ("windows = []", 'windows = "always"', "list of texts", None),
        ("windows = []", 'windows = ["mon 24:00 10m"]', "is not a window", None),
        ("windows = []", 'windows = ["noday 02:00 10m"]', "is not a window", None),
        ("windows = []", 'windows = ["abc 02:00 10m"]', "none of mon", None),
        ("windows = []", 'windows = ["mon 02:00 0m"]', "shorter than", None),
        ('zone = "UTC"', 'zone = "../etc/passwd"', "time zone", None),
        ("mains_needed = false", "mains_needed = 0", "neither true", None),
    ],
)
def test_wrong_setting_names_file_setting_and_reason(
    old: str, new: str, message: str, hint: str | None
) -> None:
    """`config.invalid` says where, what, why, and what was probably meant."""
    with pytest.raises(InvalidConfigError) as caught:
        config.parse(changed(old, new), WHERE)
    assert caught.value.code == "config.invalid"
    assert caught.value.exit_status == 2
    assert WHERE in str(caught.value)
    assert message in str(caught.value)
    assert hint is None or hint in str(caught.value.hint)


def test_windows_become_a_gate() -> None:
    """Days, start and length of each window arrive at the gate, in the zone named."""
    raw = changed("windows = []", 'windows = ["mon,fri 02:30 180m", "* 23:00 30m"]')
    raw = raw.replace(b'zone = "UTC"', b'zone = "Europe/Berlin"')
    policy = wiring.gate(config.parse(raw, WHERE))
    first, second = policy.windows
    assert (first.days, first.start) == (frozenset({0, 4}), time(2, 30))
    assert (len(second.days), second.duration) == (7, timedelta(minutes=30))
    winter = datetime(2026, 1, 5, 1, 31, tzinfo=UTC)  # a Monday, 02:31 in Berlin
    assert isinstance(gate.decide(policy, gate.Facts(winter)), gate.Open)
    closed = gate.decide(policy, gate.Facts(winter + timedelta(hours=4)))
    assert isinstance(closed, gate.Closed)


def test_unknown_time_zone_is_config_invalid() -> None:
    """A zone this machine does not know is named, not guessed."""
    raw = changed('zone = "UTC"', 'zone = "Mars/Olympus"')
    with pytest.raises(InvalidConfigError, match="Mars/Olympus"):
        wiring.gate(config.parse(raw, WHERE))


def test_one_ecu_twice_is_refused() -> None:
    """Two components under one ECU id would both obey one order."""
    text = settings.example()
    twice = text + text[text.index("[[component]]") : text.index("[[health]]")]
    with pytest.raises(InvalidConfigError, match="twice"):
        config.parse(twice.encode(), WHERE)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"a = " + b"[" * 100_000, b"", b"[device]\nid = 1\n"]
)
def test_garbage_is_config_invalid(raw: bytes) -> None:
    """Not UTF-8, nested without end, empty: one error class, no traceback."""
    with pytest.raises(InvalidConfigError):
        config.parse(raw, WHERE)


def written(path: Path, mode: int = 0o600) -> Path:
    path.write_text(settings.example())
    path.chmod(mode)
    return path


def test_d12_configuration_others_may_write_is_device_trust(tmp_path: Path) -> None:
    """World- or group-writable file, swappable directory, link: `device.trust`."""
    place = tmp_path / "etc"
    place.mkdir(mode=0o755)
    path = written(place / "agent.toml", 0o644)
    assert config.load(str(path)).path == str(path)
    for mode in (0o646, 0o664):
        path.chmod(mode)
        with pytest.raises(TrustAnchorError, match="open to other users"):
            config.load(str(path))
    path.chmod(0o644)
    place.chmod(0o777)
    with pytest.raises(TrustAnchorError, match="replace"):
        config.load(str(path))
    place.chmod(0o755)
    (place / "link.toml").symlink_to(path)
    with pytest.raises(TrustAnchorError, match="symbolic link"):
        config.load(str(place / "link.toml"))


def test_missing_and_oversized_configuration(tmp_path: Path) -> None:
    """A missing file is `config.invalid`, an endless one is never read whole."""
    with pytest.raises(InvalidConfigError, match="No such file"):
        config.load(str(tmp_path / "no.toml"))
    with pytest.raises(LimitError):
        big = tmp_path / "big.toml"
        big.touch(0o600)
        os.truncate(big, 1 << 30)
        config.load(str(big))
