"""``sealift-agent``: the faces of the agent on a terminal.

``run`` is the long-lived light parent, ``check`` one cycle in the foreground;
``status``, ``history`` and ``config-check`` only read. Errors are one line with a code
and a hint, or one JSON object; a traceback never reaches a user. Exit statuses: 0 fine,
2 usage or configuration, 3 to 8 the family of the error (``core.errors``), 75 restart
wanted. How the parts are put together is in ``wiring``, ``service`` and ``assembly``.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from sealift.agent import notify
from sealift.agent.surroundings import tidy
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.agent.config import Config

DEFAULT_CONFIG = "/etc/sealift/agent.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. Without ``arguments`` the process is ours."""
    if arguments is None:
        arguments = sys.argv[1:]
        started_by = notify.manager(os.environ, os.getpid())
        tidy(list(arguments), notify.NAMES)
    else:
        started_by = None
    found = _parser().parse_args(arguments)
    found.manager = started_by
    from sealift.agent import show

    try:
        from sealift.agent.config import load

        if found.command == "keys":
            return _keys(found)
        status: int = found.face(load(found.config), found)
    except SealiftError as error:
        show.error(error, as_json=found.json)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader went away; nothing more to say
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001 -- the last door
        show.error(
            SealiftError(f"unexpected {type(error).__name__}: {error}"),
            as_json=found.json,
        )
        return 1
    return status


# ── faces ────────────────────────────────────────────────────────────────────────────
def _run(config: Config, options: argparse.Namespace) -> int:
    from sealift.agent.service import serve

    return serve(config, options.manager)


def _check(config: Config, options: argparse.Namespace) -> int:
    from sealift.agent import foreground

    if options.dry_run:
        return foreground.dry_run(config, as_json=options.json)
    return foreground.check(config, as_json=options.json)


def _status(config: Config, options: argparse.Namespace) -> int:
    from sealift.agent import foreground

    return foreground.status(config, as_json=options.json)


def _history(config: Config, options: argparse.Namespace) -> int:
    from sealift.agent import foreground

    return foreground.past(config, as_json=options.json)


def _config_check(config: Config, options: argparse.Namespace) -> int:
    from sealift.agent import foreground

    return foreground.config_check(config, as_json=options.json)


class _Version(argparse.Action):
    """What reports call this agent; looked up only for who asks."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 -- argparse's word
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sealift.agent.wiring import AGENT

        print(AGENT)
        parser.exit()


def _keys(options: argparse.Namespace) -> int:
    from sealift.agent import making, show
    from sealift.agent.config import Tpm

    tpm = Tpm((options.tpm_tool,), options.tcti)
    found = making.make(
        options.report_key,
        options.decryption_key,
        options.store_key,
        options.counter,
        tpm,
    )
    if options.json:
        show.value(found)
    else:
        show.facts(found)
    return 0


_Face = tuple[str, "Callable[[Config, argparse.Namespace], int]", str]
_FACES: tuple[_Face, ...] = (
    ("run", _run, "poll, install and report until stopped"),
    ("check", _check, "one check now, in the foreground"),
    ("status", _status, "what runs, what is pending, what went wrong"),
    ("history", _history, "the last attempts and refusals"),
    ("config-check", _config_check, "check configuration, keys and trust anchors"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sealift-agent", description="Keeps this device's software up to date."
    )
    parser.add_argument("--version", action=_Version, help="print name and version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, face, text in _FACES:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(face=face)
        if name == "check":
            command.add_argument(
                "--dry-run", action="store_true", help="verify and tell, write nothing"
            )
    _keys_parser(commands)
    return parser


def _keys_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "make the keys of a new device in file, TPM or token; print what is public"
    command = commands.add_parser("keys", help=text, description=text)
    command.add_argument("act", choices=["make"])
    places = (
        ("--report-key", "signs reports: a file, tpm:0x81010001 or pkcs11:…"),
        ("--decryption-key", "content keys are wrapped to it; the same kinds"),
        ("--store-key", "seals the state; the same kinds, and tpm:…?pcr=7"),
        ("--counter", "keeps the release floor: tpm:0x1500016"),
    )
    for option, meaning in places:
        command.add_argument(option, default="", metavar="PLACE", help=meaning)
    command.add_argument("--tpm-tool", default="/usr/bin/tpm2", metavar="FILE")
    command.add_argument("--tcti", default="device:/dev/tpmrm0")
    command.add_argument("--json", action="store_true", help="print JSON")


if __name__ == "__main__":
    sys.exit(main())
