"""Every setting of the agent, declared once: name, form, default, unit, meaning.

``config`` reads a file by this table; the example configuration and the table in
``docs/agent.md`` are made from it, and a test compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUIRED = object()
"""Default of a setting that has none."""


class Path(str):
    """A file name; made absolute from the directory of the configuration file."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``form`` turns a TOML value into ours or raises ``ValueError``."""

    section: str
    name: str
    form: Callable[[object], object]
    default: object
    example: str
    doc: str
    unit: str = ""


# ── forms: a TOML value in, ours out, or ValueError with the reason ──────────────────
def text(value: object) -> str:
    """A text of 1 to 256 printable characters."""
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError("is not a printable text")
    if len(value) > 256:
        raise ValueError("is longer than 256 characters")
    return value


def path(value: object) -> Path:
    """A file name."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("is not a file name")
    return Path(value)


def optional_path(value: object) -> str:
    """A file name, or an empty text for none."""
    return "" if value == "" else path(value)


_TPM = re.compile(r"tpm:0x81[0-9a-fA-F]{6}(?:\?pcr=([0-9,]*))?")
_COUNTER = re.compile(r"tpm:0x0?1[0-9a-fA-F]{6}")


def key(value: object) -> str:
    """A file name, ``tpm:0x81…`` (a persistent handle), or ``pkcs11:…`` (RFC 7512)."""
    if isinstance(value, str) and value.startswith("pkcs11:"):
        return _printable(value)
    if isinstance(value, str) and value.startswith("tpm:"):
        found = _TPM.fullmatch(value)
        if found is None or found[1] is not None:
            raise ValueError("is not tpm: and a persistent handle, as tpm:0x81010001")
        return value
    return path(value)


def optional_key(value: object) -> str:
    """As :func:`key`, or an empty text for none."""
    return "" if value == "" else key(value)


def store_key(value: object) -> str:
    """As :func:`optional_key`; one in a TPM may be guarded by PCR 7 and no other."""
    found = _TPM.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[1] is None:
        return optional_key(value)
    if found[1] != "7":
        raise ValueError(
            f"seals to PCR {found[1]}: every update changes PCR 4, 9 and 11, and would "
            "lock the device out; PCR 7 alone stays (device-D31)"
        )
    return found[0]


def counter(value: object) -> str:
    """``tpm:0x01…``, the index of a counter in a TPM, or an empty text for none."""
    if value != "" and not (isinstance(value, str) and _COUNTER.fullmatch(value)):
        raise ValueError("is not tpm: and the index of a counter, as tpm:0x1500016")
    return str(value)


def _printable(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > 1024:
        raise ValueError("is not a printable address of at most 1024 characters")
    return value


def url(value: object) -> str:
    """An ``https`` address with a host and without query or fragment."""
    found = text(value)
    if not found.startswith("https://") or not found.removeprefix("https://"):
        raise ValueError("is not an https:// address")
    if set(found) & set("?#@ \\"):
        raise ValueError("has a query, a fragment, a user or a blank")
    return found.rstrip("/")


def optional_url(value: object) -> str:
    """An address as :func:`url`, or an empty text for none."""
    return "" if value == "" else url(value)


def number(low: float, high: float) -> Callable[[object], float]:
    """A number from ``low`` to ``high``, both included."""

    def form(value: object) -> float:
        if type(value) not in {int, float} or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"is not a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    return form


def count(low: int, high: int) -> Callable[[object], int]:
    """A whole number from ``low`` to ``high``, both included."""

    def form(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return value

    return form


def flag(value: object) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")  # noqa: TRY004 -- as every form
    return value


def choice(*names: str) -> Callable[[object], str]:
    """One of the named texts."""

    def form(value: object) -> str:
        if value not in names:
            raise ValueError(f"is not one of: {', '.join(names)}")
        return str(value)

    return form


def argv(value: object) -> tuple[str, ...]:
    """A program with its arguments, as a list; never a shell line."""
    if not isinstance(value, list) or not value:
        raise ValueError('is not a list of texts such as ["/usr/bin/true"]')
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError("holds something that is not a text")
    if not value[0].startswith("/"):
        raise ValueError("does not begin with the absolute path of a program")
    return tuple(value)


def program(value: object) -> tuple[str, ...]:
    """A program with its arguments, or an empty list for none."""
    return () if value == [] else argv(value)


def restart(value: object) -> tuple[str, ...]:
    """``"exit"``, which is the empty program, or a program with its arguments."""
    return () if value == "exit" else argv(value)


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"(\*|[a-z]{3}(?:,[a-z]{3})*) ([01]\d|2[0-3]):([0-5]\d) (\d{1,4})m"
)


def windows(value: object) -> tuple[Window, ...]:
    """A list of texts ``DAYS HH:MM MINUTESm``; DAYS is ``*`` or ``mon,tue,…``."""
    if not isinstance(value, list):
        raise ValueError('is not a list of texts such as ["mon,fri 02:00 180m"]')  # noqa: TRY004
    return tuple(_window(text) for text in value)


def _window(value: object) -> Window:
    found = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'{value!r} is not a window such as "mon,fri 02:00 180m"')
    names = _DAYS if found[1] == "*" else tuple(found[1].split(","))
    if not set(names) <= set(_DAYS):
        raise ValueError(f"{value!r} names a day that is none of {', '.join(_DAYS)}")
    minutes = int(found[4])
    if not 1 <= minutes <= 7 * 24 * 60:
        raise ValueError(f"{value!r} is shorter than a minute or longer than a week")
    days = frozenset(_DAYS.index(name) for name in names)
    return Window(days, int(found[2]), int(found[3]), minutes)


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly window: weekdays (Monday is 0), local start, length in minutes."""

    days: frozenset[int]
    hour: int
    minute: int
    minutes: int


def zone(value: object) -> str:
    """The name of a time zone such as ``Europe/Berlin``."""
    found = text(value)
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", found):
        raise ValueError("is not the name of a time zone such as Europe/Berlin")
    return found


def slots(value: object) -> tuple[Path, Path]:
    """A table with the files or block devices ``a`` and ``b``."""
    if not isinstance(value, dict) or set(value) != {"a", "b"}:
        raise ValueError("is not a table with exactly a and b")
    a, b = path(value["a"]), path(value["b"])
    if a == b:
        raise ValueError("names one place twice")
    return a, b


def partitions(value: object) -> tuple[int, int]:
    """A table with the partition numbers of ``a`` and ``b``, of one digit each."""
    if not isinstance(value, dict) or set(value) != {"a", "b"}:
        raise ValueError("is not a table with exactly a and b")
    number = count(1, 9)
    a, b = number(value["a"]), number(value["b"])
    if a == b:
        raise ValueError("names one partition twice")
    return a, b


# ── the table ────────────────────────────────────────────────────────────────────────
_DAY = 86_400
_TIB = 1 << 40
# fmt: off
SETTINGS = (
    Setting("device", "id", text, REQUIRED, '"dev-0001"', "name of this device on its server; the certificate carries the same"),
    Setting("device", "report_key", key, REQUIRED, '"keys/report.pem"', "private key that signs reports: a file of mode 0600, `tpm:0x81010001` or `pkcs11:…`"),
    Setting("device", "decryption_key", optional_key, "", '""', 'private key that content keys of sealed images are wrapped to, a file, `tpm:…` or `pkcs11:…`; `""`: sealed images cannot be installed'),
    Setting("server", "url", url, REQUIRED, '"https://updates.example:8443"', "base address of the device listener"),
    Setting("server", "ca", path, REQUIRED, '"ca.pem"', "the one certificate authority the server must come from"),
    Setting("server", "certificate", path, REQUIRED, '"device.pem"', "client certificate shown to the server"),
    Setting("server", "key", path, REQUIRED, '"keys/tls.pem"', "its private key, mode 0600"),
    Setting("server", "poll_seconds", number(1, _DAY), 900.0, "900", "time between two polls while the server names none", "seconds"),
    Setting("server", "poll_jitter", number(0, 0.5), 0.1, "0.1", "each wait is longer or shorter by up to this part of it", "fraction"),
    Setting("server", "enrol_url", optional_url, "", '""', 'base address of the enrolment listener, where an expired certificate is renewed; `""`: there is none'),
    Setting("trust", "image_root", path, REQUIRED, '"anchors/image.root.json"', "trust anchor: a Root of the Image repository, read-only"),
    Setting("trust", "director_root", path, REQUIRED, '"anchors/director.root.json"', "trust anchor: a Root of the Director, read-only"),
    Setting("trust", "demo_keys", flag, False, "false", "whether keys made for demonstrations may sign; never on a product"),
    Setting("state", "directory", path, REQUIRED, '"/var/lib/sealift"', "what the agent remembers; made with mode 0700 when missing"),
    Setting("state", "runtime", path, "/run/sealift/agent.json", '"/run/sealift/agent.json"', "what `status` shows of a running agent; lost at a restart, so put it on a tmpfs"),
    Setting("state", "key", store_key, "", '""', 'key the state is sealed with: a file of mode 0600, `tpm:0x81010003`, `tpm:0x81010003?pcr=7` or `pkcs11:…`; `""`: rot is found, forgery is not'),
    Setting("tpm", "tool", argv, ("/usr/bin/tpm2",), '["/usr/bin/tpm2"]', "the program of tpm2-tools, for what is named `tpm:…`"),
    Setting("tpm", "tcti", text, "device:/dev/tpmrm0", '"device:/dev/tpmrm0"', "the way to the TPM; the kernel's resource manager"),
    Setting("transfer", "rate_max", count(0, _TIB), 0, "0", "fastest download; 0 is as fast as it goes", "bytes/s"),
    Setting("transfer", "bytes_max", count(0, _TIB), 0, "0", "most bytes one install may transfer; 0 is no limit of the device's own", "bytes"),
    Setting("transfer", "minimum_rate", count(64, 1 << 30), 1024, "1024", "slower than this over 60 s ends a transfer (E4)", "bytes/s"),
    Setting("transfer", "sealed_only", flag, False, "false", "whether an order that is not sealed is refused"),
    Setting("transfer", "decoders", count(1, 8), 1, "1", "threads that decode; each one more is faster and takes about 3 MiB"),
    Setting("boot", "kind", choice("file", "uboot", "systemd-boot", "grub", "tryboot", "script"), "file", '"file"', "the boot loader: `file` is the reference loader, `uboot`, `systemd-boot`, `grub`, `tryboot` of the Raspberry Pi, or `script` for a program of the integrator (docs/integrating.md)"),
    Setting("boot", "store", path, "/boot/sealift", '"/boot/sealift"', "kind `file`: directory of the reference loader store"),
    Setting("boot", "root", path, "/", '"/"', "where the running slot is mounted; which slot runs is read there, for all kinds but `file` and `script`"),
    Setting("boot", "uboot_config", path, "/etc/fw_env.config", '"/etc/fw_env.config"', "kind `uboot`: where the copies of its environment lie"),
    Setting("boot", "fw_printenv", path, "/usr/bin/fw_printenv", '"/usr/bin/fw_printenv"', "kind `uboot`: program of libubootenv that reads them"),
    Setting("boot", "fw_setenv", path, "/usr/bin/fw_setenv", '"/usr/bin/fw_setenv"', "kind `uboot`: program of libubootenv that writes them"),
    Setting("boot", "esp", path, "/boot/efi", '"/boot/efi"', "kind `systemd-boot`: where the EFI system partition is mounted"),
    Setting("boot", "esp_mount", program, (), "[]", "kind `systemd-boot`: program that mounts it before each use, with `-r` as one more argument if nothing will be written; an empty list: it is always mounted"),
    Setting("boot", "esp_unmount", program, (), "[]", "kind `systemd-boot`: program that unmounts it after each use"),
    Setting("boot", "esp_check", program, (), "[]", "kind `systemd-boot`: program that mends it before it is mounted to be written, such as `fsck.fat -a`; status 0 and 1 are fine"),
    Setting("boot", "efi_variables", flag, True, "true", "kind `systemd-boot`: whether the firmware keeps variables at run time; without, names decide alone, and a hardware watchdog is required"),
    Setting("boot", "grubenv", path, "/boot/grub/grubenv", '"/boot/grub/grubenv"', "kind `grub`: its environment block; the second one beside it has `.home` at the end of its name"),
    Setting("boot", "autoboot", path, "/boot/autoboot/autoboot.txt", '"/boot/autoboot/autoboot.txt"', "kind `tryboot`: the file in which the firmware finds the partition"),
    Setting("boot", "partitions", partitions, (2, 3), "{ a = 2, b = 3 }", "kind `tryboot`: partition numbers of the slots"),
    Setting("boot", "tryboot_note", path, "/run/sealift-tryboot", '"/run/sealift-tryboot"', "kind `tryboot`: where it is noted that a slot is armed; on a tmpfs"),
    Setting("boot", "program", program, (), "[]", "kind `script`: program that answers for the loader"),
    Setting("boot", "seconds", number(0.1, 600), 30.0, "30", "time one call of a program of the boot loader may take", "seconds"),
    Setting("boot", "verified", flag, False, "false", "whether a release is refused that does not say how it boots verified (docs/secure-boot.md)"),
    Setting("boot", "restart", restart, (), '"exit"', 'program that restarts the machine, or `"exit"`: the agent ends with status 75; kind `tryboot` needs a program, which gets `0 tryboot` as one more argument to start a trial'),
    Setting("watchdog", "device", optional_path, "", '""', 'the kernel\'s watchdog, such as `/dev/watchdog`, where no service manager feeds it; `""`: none'),
    Setting("watchdog", "seconds", count(60, 3600), 120, "120", "the machine is reset when that device was not fed for so long", "seconds"),
    Setting("watchdog", "settled", optional_path, "/run/sealift/settled", '"/run/sealift/settled"', 'file made in each start as soon as it is no trial, on a tmpfs; `sealift-trial.timer` looks for it; `""`: none'),
    Setting("gate", "windows", windows, (), "[]", 'when the device may restart into a new slot: texts `"DAYS HH:MM MINUTESm"`, DAYS is `*` or `mon,tue,…`; an empty list is always'),
    Setting("gate", "zone", zone, "UTC", '"UTC"', "time zone of the windows"),
    Setting("gate", "expected_seconds", number(0, _DAY), 0.0, "0", "what install and restart take; it has to fit into the rest of a window", "seconds"),
    Setting("gate", "battery_percent_min", count(0, 100), 0, "0", "least charge for a restart while not on mains; 0 asks for none", "percent"),
    Setting("gate", "mains_needed", flag, False, "false", "whether a restart waits for mains power"),
    Setting("component", "ecu_id", text, REQUIRED, '"dev-0001-main"', "name of the component in Director metadata"),
    Setting("component", "hardware_id", text, REQUIRED, '"demo-board-r1"', "hardware it runs on; images for other hardware are refused"),
    Setting("component", "slots", slots, REQUIRED, '{ a = "slot-a.img", b = "slot-b.img" }', "files or block devices of the two slots"),
    Setting("component", "factory", optional_path, "", '""', 'what the factory put into the slot that runs, as `sealift device provision --factory` writes it; `""`: unknown until the first update'),
    Setting("component", "counter", counter, "", '""', 'hardware counter that keeps the release floor, such as `tpm:0x1500016`; `""`: none'),
    Setting("component", "tries", count(1, 16), 1, "1", "starts the loader grants a new slot"),
    Setting("component", "trial_seconds", number(1, _DAY), 300.0, "300", "time a new slot has to earn its confirm", "seconds"),
    Setting("component", "link", program, (), "[]", "program that talks to the microcontroller this component is (docs/microcontrollers.md); an empty list: it is this device itself"),
    Setting("component", "link_seconds", number(0.1, 3600), 60.0, "60", "time one call of that program may take", "seconds"),
    Setting("health", "name", text, REQUIRED, '"service"', "name of the check in reports"),
    Setting("health", "command", argv, REQUIRED, '["/usr/bin/true"]', "program of the check; status 0 is healthy; runs in a clean environment"),
    Setting("health", "deadline", number(0.1, 3600), 30.0, "30", "time it may take; a hang counts as unhealthy", "seconds"),
)
# fmt: on

REPEATED = frozenset({"component", "health"})
"""Sections written as ``[[name]]``, any number of times."""


def sections() -> tuple[str, ...]:
    """Section names in the order of the table."""
    return tuple(dict.fromkeys(setting.section for setting in SETTINGS))


def of(section: str) -> dict[str, Setting]:
    """The settings of one section by name."""
    return {s.name: s for s in SETTINGS if s.section == section}


def example() -> str:
    """A complete configuration file with every setting and its meaning."""
    return "\n".join(_example_lines()) + "\n"


def _example_lines() -> Iterator[str]:
    for section in sections():
        yield f"[[{section}]]" if section in REPEATED else f"[{section}]"
        for setting in of(section).values():
            need = "required" if setting.default is REQUIRED else "optional"
            unit = f", {setting.unit}" if setting.unit else ""
            yield f"# {setting.doc} ({need}{unit})"
            yield f"{setting.name} = {setting.example}"
        yield ""


def table() -> str:
    """The same as a Markdown table, for ``docs/agent.md``."""
    head = "| setting | default | unit | meaning |\n|---|---|---|---|\n"
    return head + "".join(_row(setting) for setting in SETTINGS)


def _row(setting: Setting) -> str:
    mark = "[[{}]]" if setting.section in REPEATED else "[{}]"
    name = f"`{mark.format(setting.section)} {setting.name}`"
    default = "required" if setting.default is REQUIRED else f"`{setting.example}`"
    return f"| {name} | {default} | {setting.unit} | {setting.doc} |\n"
