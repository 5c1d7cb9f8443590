"""The agent's configuration: one TOML file in, one frozen value out.

Strict: an unknown setting is an error, not a comment. Relative file names are relative
to the file they stand in. The settings themselves are declared in ``settings``. No
environment variable changes anything here (D-12).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.agent import settings
from sealift.agent.files import read_guarded
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 256 * 1024  # bytes of a configuration file


@dataclass(frozen=True, slots=True)
class Server:
    """Where to poll, with which identity, how often."""

    url: str
    ca: str
    certificate: str
    key: str
    poll_seconds: float
    poll_jitter: float
    enrol_url: str


@dataclass(frozen=True, slots=True)
class Tpm:
    """How the TPM is reached, where something is kept in it."""

    tool: tuple[str, ...]
    tcti: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Limits of this device on downloads; a rate or length of 0 stands for none."""

    rate_max: int
    bytes_max: int
    minimum_rate: int
    sealed_only: bool
    decoders: int


@dataclass(frozen=True, slots=True)
class Boot:
    """The boot loader; an empty ``restart`` means that the agent exits with 75."""

    kind: str
    store: str
    root: str
    uboot_config: str
    fw_printenv: str
    fw_setenv: str
    esp: str
    esp_mount: tuple[str, ...]
    esp_unmount: tuple[str, ...]
    esp_check: tuple[str, ...]
    efi_variables: bool
    grubenv: str
    autoboot: str
    partitions: tuple[int, int]
    tryboot_note: str
    program: tuple[str, ...]
    seconds: float
    verified: bool
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watchdog:
    """A device to feed, and the file that says "no trial"; empty: none."""

    device: str
    seconds: int
    settled: str


@dataclass(frozen=True, slots=True)
class Gate:
    """When this device may restart into a new slot; see ``gate``."""

    windows: tuple[settings.Window, ...]
    zone: str
    expected_seconds: float
    battery_percent_min: int
    mains_needed: bool


@dataclass(frozen=True, slots=True)
class Component:
    """One updatable component (an ECU on the wire); ``slots`` are those of a and b.

    ``factory`` is the file that names the image it was made with; empty: none does.
    ``link`` is the program that talks to it, if it is a microcontroller behind this
    device, else empty. ``counter`` is the hardware counter of its floor, if there is
    one.
    """

    ecu_id: str
    hardware_id: str
    slots: tuple[str, str]
    factory: str
    counter: str
    tries: int
    trial_seconds: float
    link: tuple[str, ...]
    link_seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """One health check."""

    name: str
    command: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the agent is told from outside, checked."""

    path: str
    device_id: str
    report_key: str
    decryption_key: str
    server: Server
    image_root: str
    director_root: str
    demo_keys: bool
    state: str
    runtime: str
    state_key: str
    tpm: Tpm
    transfer: Transfer
    boot: Boot
    watchdog: Watchdog
    gate: Gate
    components: tuple[Component, ...]
    health: tuple[Check, ...]


def load(path: str) -> Config:
    """Read and check a configuration file.

    Raises:
        InvalidConfigError: missing, not TOML, or a setting is unknown, missing or
            wrong; the message names file, setting and reason.
        TrustAnchorError: somebody else may have written it.
    """
    where = os.path.abspath(path)
    raw = read_guarded(where, "configuration", limit=_LIMIT, absent=InvalidConfigError)
    return parse(raw, where)


def parse(raw: bytes, path: str) -> Config:
    """The configuration in the bytes of the file ``path``; reads no other file.

    Raises:
        InvalidConfigError: as in :func:`load`.
    """
    return _build(_Reader(path), _toml(raw, path))


def _toml(raw: bytes, path: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError
        raise InvalidConfigError(
            f"{path} is not TOML: {error}", hint="see docs/agent.md for an example"
        ) from error


def _build(read: _Reader, found: dict[str, Any]) -> Config:
    read.known(found, settings.sections(), "section")
    device = read.section(found, "device")
    trust = read.section(found, "trust")
    state = read.section(found, "state")
    components = tuple(Component(**c) for c in read.several(found, "component"))
    read.distinct("component", "ecu_id", [c.ecu_id for c in components])
    if len(components) != 1:  # the store of the reference loader knows two slots
        raise read.wrong("component", None, "must be there exactly once")
    boot = Boot(**read.section(found, "boot"))
    if boot.kind == "script" and not boot.program:
        raise read.wrong("boot", "program", "is missing, kind `script` needs it")
    if boot.esp_mount and not boot.esp_unmount:
        raise read.wrong("boot", "esp_unmount", "is missing, esp_mount needs it")
    if boot.kind == "tryboot" and not boot.restart:
        raise read.wrong("boot", "restart", "is no program, kind `tryboot` needs one")
    checks = tuple(Check(**c) for c in read.several(found, "health"))
    read.distinct("health", "name", [c.name for c in checks])
    return Config(
        path=read.path,
        device_id=device["id"],
        report_key=device["report_key"],
        decryption_key=device["decryption_key"],
        server=Server(**read.section(found, "server")),
        image_root=trust["image_root"],
        director_root=trust["director_root"],
        demo_keys=trust["demo_keys"],
        state=state["directory"],
        runtime=state["runtime"],
        state_key=state["key"],
        tpm=Tpm(**read.section(found, "tpm")),
        transfer=Transfer(**read.section(found, "transfer")),
        boot=boot,
        watchdog=Watchdog(**read.section(found, "watchdog")),
        gate=Gate(**read.section(found, "gate")),
        components=components,
        health=checks,
    )


class _Reader:
    """Takes values out of parsed TOML by the table of settings."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._directory = os.path.dirname(path)

    def wrong(
        self, section: str, name: str | None, why: str, hint: str | None = None
    ) -> InvalidConfigError:
        """The error for one setting, or for a whole section."""
        place = f"[{section}]" if name is None else f"[{section}] {name}"
        return InvalidConfigError(
            f"{self.path}: {place} {why}", hint=hint, setting=place
        )

    def known(
        self, found: Mapping[str, object], names: tuple[str, ...], what: str
    ) -> None:
        """Refuse names that are not in the table, with the nearest that is."""
        for name in found:
            if name not in names:
                raise InvalidConfigError(
                    f"{self.path}: unknown {what} {name!r}",
                    hint=_nearest(name, names),
                    setting=name,
                )

    def section(self, found: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The values of a section that stands once."""
        return self._values(name, found.get(name, {}))

    def several(self, found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """The values of each ``[[name]]``."""
        tables = found.get(name, [])
        if not isinstance(tables, list):
            raise self.wrong(name, None, f"must be written [[{name}]]")
        return [self._values(name, table) for table in tables]

    def distinct(self, section: str, name: str, values: list[str]) -> None:
        """Refuse one value in two places."""
        for value in values:
            if values.count(value) > 1:
                raise self.wrong(section, name, f"{value!r} is there twice")

    def _values(self, section: str, found: object) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self.wrong(section, None, "is not a table")
        declared = settings.of(section)
        self.known(found, tuple(declared), f"setting in [{section}]")
        return {name: self._value(s, found) for name, s in declared.items()}

    def _value(self, setting: settings.Setting, found: dict[str, object]) -> object:
        if setting.name not in found:
            if setting.default is settings.REQUIRED:
                raise self.wrong(setting.section, setting.name, "is missing")
            return setting.default
        try:
            return self._placed(setting.form(found[setting.name]))
        except ValueError as error:
            raise self.wrong(setting.section, setting.name, str(error)) from error

    def _placed(self, value: object) -> object:
        if isinstance(value, settings.Path):
            return os.path.normpath(os.path.join(self._directory, value))
        if isinstance(value, tuple):
            return tuple(self._placed(part) for part in value)
        return value


def _nearest(name: str, names: tuple[str, ...]) -> str:
    import difflib  # only for somebody who mistyped

    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
