"""The program of a link to a simulated microcontroller, as an integrator writes one.

``python -m sealift.sim.mcu_link SOCKET VERB [ARGUMENT]`` hands the verb and its
standard input to whoever holds the wire (:func:`serve`), prints the answer, and ends
with the status that ``docs/microcontrollers.md`` names: a program that only lives for
one verb in front of a process that keeps the wire open.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from sealift.agent.link import AGAIN, UNUSABLE
from sealift.agent.ports import Parcel, Unit
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    PatchError,
    SealiftError,
)
from sealift.core.fields import count, digest, member, text
from sealift.core.types import Patch, Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sealift.agent.ports import Link

REFUSED: Final = 1
_SECONDS: Final = 10.0


# ── verbs as JSON ────────────────────────────────────────────────────────────────────
def answer(link: Link, words: Sequence[str], given: bytes) -> dict[str, object]:
    """What one verb gives, as JSON values.

    Raises:
        SealiftError: from the link, or the verb is none.
    """
    match words:
        case ["identify"]:
            return unit_to_json(link.identify())
        case ["begin"]:
            return {"offset": link.begin(parcel_from_json(json.loads(given)))}
        case ["write", offset]:
            link.write(int(offset), given)
        case ["finish"]:
            link.finish()
        case ["test", slot]:
            link.test(Slot(slot))
        case ["confirm", image]:
            link.confirm(bytes.fromhex(image))
        case ["restart"]:
            link.restart()
        case _:
            raise FormatError(f"no such verb: {words}")
    return {}


def unit_to_json(unit: Unit) -> dict[str, object]:
    """What ``identify`` prints."""
    found = asdict(unit)
    found["kinds"] = sorted(unit.kinds)
    for name in ("sha256", "waiting", "coming"):
        found[name] = found[name] and found[name].hex()
    return found


def parcel_from_json(found: Mapping[str, object]) -> Parcel:
    """What ``begin`` reads.

    Raises:
        FormatError: a member is missing, of a wrong type or out of range.
    """
    patch = found.get("patch")
    return Parcel(
        slot=Slot(text(found, "slot", 1)),
        length=count(found, "length"),
        sha256=digest(found, "sha256", 32),
        image_length=count(found, "image_length"),
        image_sha256=digest(found, "image_sha256", 32),
        patch=None if patch is None else Patch.from_json(member(found, "patch")),
    )


# ── who holds the wire ───────────────────────────────────────────────────────────────
@contextlib.contextmanager
def serve(link: Link, path: str) -> Iterator[None]:
    """Answer at the socket ``path`` as long as the context lasts."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        thread = threading.Thread(target=_serve, args=(link, listening))
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(link: Link, listening: socket.socket) -> None:
    while True:
        try:
            wire, _ = listening.accept()
        except OSError:
            return  # it was shut down
        with wire, wire.makefile("rwb") as file:
            words = json.loads(file.readline())
            status, output = _status(link, words, file.read())
            file.write(json.dumps({"status": status, "output": output}).encode())


def _status(link: Link, words: Sequence[str], given: bytes) -> tuple[int, str]:
    try:
        return 0, json.dumps(answer(link, words, given))
    except FailedTransferError as error:
        return AGAIN, error.message
    except PatchError as error:
        return UNUSABLE, error.message
    except SealiftError as error:
        return REFUSED, error.message


# ── the program ──────────────────────────────────────────────────────────────────────
def main(arguments: Sequence[str], given: bytes) -> int:
    """One verb; the exit status."""
    path, *words = arguments
    try:
        told = _ask(path, words, given)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"nobody holds the wire: {error}\n")
        return AGAIN
    sys.stdout.write(told["output"] + "\n")
    return int(told["status"])


def _ask(path: str, words: Sequence[str], given: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(_SECONDS)
        wire.connect(path)
        wire.sendall(json.dumps(words).encode() + b"\n" + given)
        wire.shutdown(socket.SHUT_WR)
        with wire.makefile("rb") as file:
            found: dict[str, Any] = json.loads(file.read())
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer.read()))
