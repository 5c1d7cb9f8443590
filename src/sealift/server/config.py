"""The server's settings: ``server.toml`` in its directory, one frozen value out.

Strict: an unknown setting is an error. There is no debug setting, no default
credential, and no setting that turns authentication off.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from sealift.core.errors import InvalidConfigError
from sealift.core.types import PatchKind
from sealift.payload.mcu import Recipe
from sealift.server.domain.permissions import ROLES, Roles, custom_roles

__all__ = [
    "Config",
    "DeltaSettings",
    "Layout",
    "Limits",
    "McuSettings",
    "PayloadSettings",
    "address",
    "load",
    "to_toml",
    "url",
]

CONFIG_BYTES_MAX = 64 * 1024
QUALITIES = ("quick", "balanced", "best")
_ZERO = frozenset({"delta.wait_minutes"})
"""Numbers that may be zero."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on what comes in; sizes in bytes, rates in requests per minute."""

    manifest_bytes: int = 1024 * 1024
    request_bytes: int = 1024 * 1024
    metadata_bytes: int = 5_000_000
    container_bytes: int = 64 * 1024**3
    ecus: int = 256
    device_rate: int = 3000
    operator_rate: int = 6000
    enrolment_rate: int = 60
    connections: int = 2000


@dataclass(frozen=True, slots=True)
class DeltaSettings:
    """Deltas this server makes: whether, within what, how many.

    ``memory_max`` is in bytes, ``seconds_max`` CPU and wall time of one delta. A
    deployment waits ``wait_minutes`` for deltas under way if it does not say otherwise.
    ``keep`` bounds how many are made, and kept, per new image. ``sealed`` lets the
    server open sealed images in memory to make (sealed) deltas of them.
    """

    enabled: bool = True
    memory_max: int = 4 * 1024**3
    seconds_max: int = 3600
    wait_minutes: int = 10
    quality: str = "balanced"
    keep: int = 32
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class PayloadSettings:
    """``must_seal``: hardware ids whose images never travel in the open."""

    must_seal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class McuSettings:
    """``[mcu."HARDWARE-ID"]``: what that type of microcontroller can decode.

    As :class:`sealift.payload.mcu.Recipe`; the last three for patches in place only.
    """

    kind: str = PatchKind.SEQUENTIAL.value
    window: int = 8
    lookahead: int = 7
    memory_size: int = 0
    segment_size: int = 0
    minimum_shift: int = 0

    def recipe(self) -> Recipe:
        """The settings as what makes patches.

        Raises:
            InvalidConfigError: no patch can be made so.
        """
        _one_of("mcu kind", self.kind, tuple(PatchKind))
        found = Recipe.from_json(asdict(self))
        found.check()
        return found


@dataclass(frozen=True, slots=True)
class Config:
    """What one server is told.

    Addresses are ``HOST:PORT``; port 0 picks a free one. ``demo`` makes it accept keys
    that are marked as throw-away keys, which nothing else does.
    """

    device_listen: str = "127.0.0.1:8443"
    operator_listen: str = "127.0.0.1:8444"
    enrol_listen: str = "127.0.0.1:8445"
    host_names: tuple[str, ...] = ("localhost",)
    poll_seconds: int = 300
    demo: bool = False
    limits: Limits = Limits()
    delta: DeltaSettings = DeltaSettings()
    payload: PayloadSettings = PayloadSettings()
    mcu: Mapping[str, Recipe] = field(default_factory=dict)
    """Types of microcontrollers, by hardware id, that get patches."""
    roles: Roles = field(default_factory=lambda: dict(ROLES))
    """Actions by role: those every server has, and its own."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies below the server's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.root / "server.toml"

    @property
    def database(self) -> Path:
        """SQLite."""
        return self.root / "sealift.db"

    @property
    def blobs(self) -> Path:
        """Payload containers, one file per digest."""
        return self.root / "blobs"

    @property
    def keys(self) -> Path:
        """Every private key of this server."""
        return self.root / "keys"

    @property
    def public(self) -> Path:
        """What others may and must have: online public keys, TLS CA."""
        return self.root / "public"

    @property
    def content_key(self) -> Path:
        """What the desk wraps content keys of sealed images to."""
        return self.public / "content-key.json"

    @property
    def scratch(self) -> Path:
        """Where deltas are made; emptied at every start."""
        return self.root / "scratch"

    @property
    def lock(self) -> Path:
        """Held by the one process that runs on this directory."""
        return self.root / "lock"

    def key(self, name: str) -> Path:
        """The private key called ``name``."""
        return self.keys / f"{name}.pem"

    def certificate(self, name: str) -> Path:
        """The certificate called ``name``."""
        return self.public / f"{name}.pem"


_TABLES = {
    "limits": Limits(),
    "delta": DeltaSettings(),
    "payload": PayloadSettings(),
}


def address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as a pair.

    Raises:
        InvalidConfigError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidConfigError(
            f"{text!r} is not an address to listen on", hint="write HOST:PORT"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def url(config: Config, listen: str) -> str:
    """How a listener is called from outside: by the first host name."""
    host, port = config.host_names[0], address(listen)[1]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def load(path: Path) -> Config:
    """Read and check ``server.toml``.

    Raises:
        InvalidConfigError: missing, unreadable, not TOML, or a setting is unknown or of
            a wrong kind.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(CONFIG_BYTES_MAX + 1)
        if len(raw) > CONFIG_BYTES_MAX:
            raise InvalidConfigError(f"{path} has more than {CONFIG_BYTES_MAX} bytes")
        found = tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise InvalidConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint="sealift server init DIR makes a server's directory",
        ) from error
    except ValueError as error:  # UnicodeDecodeError, TOMLDecodeError
        raise InvalidConfigError(f"{path} is not TOML: {error}") from error
    tables = {
        name: _checked(defaults, found.pop(name, {}), f"{name}.")
        for name, defaults in _TABLES.items()
    }
    recipes = _recipes(found.pop("mcu", {}))
    roles = _roles(found.pop("roles", {}))
    config: Config = replace(
        _checked(Config(), found | tables, ""), mcu=recipes, roles=roles
    )
    _one_of("delta.quality", config.delta.quality, QUALITIES)
    for listen in (config.device_listen, config.operator_listen, config.enrol_listen):
        address(listen)
    return config


def _roles(found: Any) -> Roles:
    """``[roles]``: a list of actions by the name of a role of this server's own."""
    if not isinstance(found, dict):
        raise InvalidConfigError("roles is not a table")
    lists = {name: _value(f"roles.{name}", told, ("",)) for name, told in found.items()}
    return custom_roles(cast("dict[str, tuple[str, ...]]", lists))


def _recipes(found: Any) -> dict[str, Recipe]:
    if not isinstance(found, dict):
        raise InvalidConfigError("mcu is not a table")
    return {
        hardware_id: _checked(McuSettings(), table, f"mcu.{hardware_id}.").recipe()
        for hardware_id, table in found.items()
    }


def to_toml(config: Config) -> str:
    """The settings as ``server.toml`` holds them; limits stay at their defaults."""
    names = ", ".join(f'"{name}"' for name in config.host_names)
    return (
        "# Sealift server. Every setting: docs/server.md\n"
        f'device_listen = "{config.device_listen}"\n'
        f'operator_listen = "{config.operator_listen}"\n'
        f'enrol_listen = "{config.enrol_listen}"\n'
        f"host_names = [{names}]\n"
        f"poll_seconds = {config.poll_seconds}\n"
        f"demo = {str(config.demo).lower()}\n"
    )


def _checked(defaults: Any, found: dict[str, Any], place: str) -> Any:
    """``defaults`` with the values of ``found``, each of the default's kind."""
    if not isinstance(found, dict):
        raise InvalidConfigError(f"{place.rstrip('.')} is not a table")
    known = {f.name: getattr(defaults, f.name) for f in fields(defaults)}
    values = dict(known)
    for name, value in found.items():
        if name not in known:
            raise InvalidConfigError(
                f"unknown setting {place}{name}", hint=f"one of {', '.join(known)}"
            )
        values[name] = _value(place + name, value, known[name])
    return type(defaults)(**values)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidConfigError(
            f"{name} cannot be {value!r}", hint=f"one of {', '.join(known)}"
        )


def _value(name: str, value: object, like: object) -> object:
    if isinstance(like, tuple):
        if isinstance(value, list) and value and all(type(v) is str for v in value):
            return tuple(value)
        raise InvalidConfigError(f"{name} is not a list of texts")
    if type(value) is not type(like):
        raise InvalidConfigError(f"{name} is not a {type(like).__name__}")
    least = 0 if name in _ZERO else 1
    if type(value) is int and value < least:
        raise InvalidConfigError(f"{name} must be at least {least}")
    return value
