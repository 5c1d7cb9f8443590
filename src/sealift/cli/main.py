"""``sealift``: group names to modules, loaded when named; errors to text and status.

``sealift --help`` and ``--version`` load no package of ours but this one. A group is
one module ``sealift.cli.NAME`` with a typer application called ``app``. Exit status: 0
done, 2 usage or configuration, 130 interrupted, else the family of the error
(``core.errors``).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GROUPS", "main"]

GROUPS: dict[str, tuple[str, str]] = {
    # group: (extra that brings its libraries, what it is for)
    "init": ("sign", "set up a vendor's desk: offline keys and first metadata"),
    "keys": ("sign", "show, rotate, recover, rehearse and publish the desk's keys"),
    "release": ("sign", "pack, review, sign and publish a release"),
    "payload": ("sign", "try deltas: make, apply, look inside, check images"),
    "server": ("server", "set up and run a server"),
    "deployment": ("client", "order devices to a release, see how far they are"),
    "device": ("client", "register devices, list and show them"),
    "token": ("client", "give others access to a server, and take it back"),
    "sim": ("sim", "cut the power of simulated devices everywhere"),
    "attack": ("sim", "run the catalogue of attacks against the real code"),
    "demo": ("sim", "the whole way of an update on this machine, in minutes"),
}
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    first = args[0] if args else "--help"
    if first in {"--help", "-h", "help"}:
        print(_help())
        return 0
    if first == "--version":
        print(f"sealift {_version()}")
        return 0
    if first not in GROUPS:
        return _unknown(first)
    try:
        return _run(first, args[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(name: str, args: list[str]) -> int:
    as_json = "--json" in args
    try:
        module = importlib.import_module(f"sealift.cli.{name}")
        return _call(name, module.app, args)
    except ModuleNotFoundError as error:
        return _missing(name, error, as_json=as_json)
    except SystemExit as error:  # the library's way out when standard output closed
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # noqa: BLE001  no traceback reaches a user
        return _failed(error, as_json=as_json)


def _call(name: str, app: Any, args: list[str]) -> int:
    from typer.main import get_command

    command = get_command(app)
    found = command.main(args, prog_name=f"sealift {name}", standalone_mode=False)
    return found if isinstance(found, int) else 0


def _failed(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong in the one form of all errors; its exit status."""
    import typer

    from sealift.cli.output import print_error
    from sealift.core.errors import InvalidConfigError, SealiftError

    match error:
        case typer.Abort():
            return INTERRUPTED
        case typer.TyperException() if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        case SealiftError():
            found = error
        case typer.TyperException():
            found = InvalidConfigError(error.format_message(), hint="see --help")
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            found = InvalidConfigError(f"{place}{error.strerror or error}")
        case _:
            if os.environ.get("SEALIFT_DEBUG"):
                raise error
            found = SealiftError(
                f"internal error: {type(error).__name__}: {error}",
                hint="this is a defect of Sealift; SEALIFT_DEBUG=1 shows where",
            )
    print_error(found, as_json=as_json)
    return found.exit_status


def _missing(name: str, error: ModuleNotFoundError, *, as_json: bool) -> int:
    """The libraries of a group are not installed; typer itself may be one of them."""
    absent = error.name or ""
    if absent.split(".")[0] == "sealift" and absent != f"sealift.cli.{name}":
        raise error
    extra = GROUPS[name][0]
    message = f"`sealift {name}` needs the package {absent}, which is not installed"
    hint = f"pip install 'sealift[{extra}]'"
    if as_json:
        import json

        found = {"code": "config.missing", "message": message, "hint": hint}
        print(json.dumps({"error": found}, indent=2))
    else:
        print(f"error: {message} [config.missing]\nhint: {hint}", file=sys.stderr)
    return 2


def _unknown(name: str) -> int:
    shown = name.encode("unicode_escape").decode("ascii")
    print(f"error: there is no command {shown!r} [config.invalid]", file=sys.stderr)
    print(f"hint: one of {', '.join(GROUPS)}; see sealift --help", file=sys.stderr)
    return 2


def _help() -> str:
    rows = [f"  {name.ljust(12)}{text}" for name, (_, text) in GROUPS.items()]
    return "\n".join(
        [
            "usage: sealift GROUP COMMAND [OPTIONS]",
            "",
            "Signed updates for devices nobody can reach.",
            "",
            "groups:",
            *rows,
            "",
            "options:",
            "  --version   print the version",
            "  --help      this text; sealift GROUP --help tells the commands",
        ]
    )


def _version() -> str:
    from importlib.metadata import version

    return version("sealift")
