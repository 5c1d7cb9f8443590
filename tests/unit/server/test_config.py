"""The server's settings: strict, documented, without a dangerous one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import InvalidConfigError
from sealift.server.config import (
    Config,
    DeltaSettings,
    Limits,
    PayloadSettings,
    address,
    load,
    to_toml,
    url,
)

TABLES: dict[str, Any] = {
    "limits": Limits(),
    "delta": DeltaSettings(),
    "payload": PayloadSettings(),
}
MANUAL = (Path(__file__).resolve().parents[3] / "docs/server.md").read_text("utf-8")


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "server.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """``init`` writes settings that ``run`` reads back alike."""
    config = Config(
        "[::1]:1", "127.0.0.1:0", "[::1]:2", ("a.example", "::1"), 60, demo=True
    )
    assert load(write(tmp_path, to_toml(config))) == config
    assert load(write(tmp_path, "")) == Config()


@pytest.mark.parametrize(
    "text",
    [
        "debug = true",
        "poll_seconds = 0",
        "poll_seconds = true",
        'poll_seconds = "300"',
        "host_names = []",
        'host_names = "localhost"',
        "host_names = [1]",
        'device_listen = "8443"',
        'device_listen = "host:99999"',
        'device_listen = "host:\u0661"',
        "[limits]\nnothing = 1",
        "[limits]\nmanifest_bytes = -1",
        "limits = 3",
        "[delta]\nenabled = 1",
        "[delta]\nkeep = 0",
        "[delta]\nwait_minutes = -1",
        '[delta]\nquality = "good"',
        '[payload]\nmust_seal = "board"',
        "demo = 1",
        "poll_seconds = ",
        b"\xff\xfe",
        b"#" * 70_000,
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str | bytes) -> None:
    """Unknown settings, wrong kinds and values, and what is no TOML."""
    with pytest.raises(InvalidConfigError):
        load(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    """A directory that is no server's says how to make one."""
    with pytest.raises(InvalidConfigError) as found:
        load(tmp_path / "server.toml")
    assert "server init" in str(found.value.hint)


def test_addresses() -> None:
    """Names, IPv4 and IPv6, and the address others are told."""
    assert address("localhost:1") == ("localhost", 1)
    assert address("[::1]:443") == ("::1", 443)
    assert (
        url(Config(host_names=("a.example",)), "0.0.0.0:8443")
        == "https://a.example:8443"
    )
    assert url(Config(host_names=("::1",)), "[::1]:8443") == "https://[::1]:8443"


@pytest.mark.parametrize(
    "name",
    [f.name for f in fields(Config) if f.name not in TABLES]
    + [f"{table}.{f.name}" for table in TABLES for f in fields(TABLES[table])],
)
def test_every_setting_is_documented(name: str) -> None:
    """The manual has each setting, with its default if it is a number."""
    row = next(
        line
        for line in MANUAL.splitlines()
        if line.startswith("| `") and f"`{name}`" in line
    )
    table, _, member = name.rpartition(".")
    default = getattr(TABLES.get(table, Config()), member)
    if isinstance(default, int) and not isinstance(default, bool):
        assert str(default) in row
