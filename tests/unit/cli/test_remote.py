"""Which server a command talks to, and that nobody else can read the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.cli import remote
from sealift.core.errors import InvalidConfigError, KeyUnreadableError, SealiftError
from sealift.server.adapters import ca
from tests.unit.server.world import START


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a profile, a token, and a CA."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    from cryptography.hazmat.primitives.serialization import Encoding

    authority = ca.make_authority("test", ca.new_key(), START)
    (tmp_path / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    secret(tmp_path / "token", "slt_abc\n")
    return tmp_path


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def authorization(*arguments: Path | str | None) -> str:
    server, token, authority, profile = arguments
    with remote.session(server, token, authority, profile) as operator:  # type: ignore[arg-type]
        return f"{operator.session.http.base_url} {operator.session.http.headers['authorization']}"


def test_options_name_the_server(here: Path) -> None:
    """Three options are enough."""
    found = authorization("https://a:1", here / "token", here / "ca.pem", None)
    assert found == "https://a:1 Bearer slt_abc"


def test_profile_is_read_and_options_win(here: Path) -> None:
    """A profile's file names are its own; an option replaces its value."""
    text = 'server = "https://b:2"\nca = "ca.pem"\ntoken = "slt_b"\n'
    profile = secret(here / "profile.toml", text)
    assert authorization(None, None, None, profile) == "https://b:2 Bearer slt_b"
    found = authorization("https://a:1", here / "token", None, profile)
    assert found == "https://a:1 Bearer slt_abc"
    home = here / "home/.config/sealift/server.toml"
    secret(home, text.replace("ca.pem", str(here / "ca.pem")))
    assert authorization(None, None, None, None) == "https://b:2 Bearer slt_b"


def test_saved_profile_is_read_again(here: Path) -> None:
    """What is saved is read, and an existing file is not touched."""
    path = here / "saved.toml"
    remote.save_profile(path, server="https://c:3", ca=here / "ca.pem", token="slt_c")
    assert path.stat().st_mode & 0o777 == 0o600
    assert authorization(None, None, None, path) == "https://c:3 Bearer slt_c"
    with pytest.raises(InvalidConfigError):
        remote.save_profile(path, server="https://d", ca=here / "ca.pem", token="t")


@pytest.mark.parametrize(
    ("sentence", "text", "mode", "error"),
    [
        ("open to others", 'token = "t"', 0o644, KeyUnreadableError),
        ("open to the group", 'token = "t"', 0o640, KeyUnreadableError),
        ("not TOML", "token = ", 0o600, InvalidConfigError),
        ("an unknown setting", 'password = "t"', 0o600, InvalidConfigError),
        ("a number", "token = 7", 0o600, InvalidConfigError),
        ("too long", "#" * 70_000, 0o600, KeyUnreadableError),
        ("nothing", "", 0o600, InvalidConfigError),
        (
            "a token file that is not there",
            'token_file = "none"',
            0o600,
            KeyUnreadableError,
        ),
    ],
)
def test_bad_profile(
    here: Path, sentence: str, text: str, mode: int, error: type[SealiftError]
) -> None:
    """A profile that cannot be used, or that others can read, is refused."""
    profile = secret(here / "profile.toml", text, mode)
    with pytest.raises(error):
        authorization(None, None, None, profile)


@pytest.mark.parametrize("text", ["", "\n", "a\tb\n", "ü\n", "x" * 600])
def test_bad_token(here: Path, text: str) -> None:
    """What cannot be a token is not sent to anybody."""
    bad = secret(here / "bad", text)
    with pytest.raises(KeyUnreadableError):
        authorization("https://a", bad, here / "ca.pem", None)
