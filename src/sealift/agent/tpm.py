"""Keys and a counter in a TPM 2.0, driven by Debian's ``tpm2`` program.

No TPM codec of ours and nothing compiled in the agent (ADR 14): each act is one short
program, some 10 ms. All that daily work touches is persistent, so no object context is
left behind (device-D29); whoever talks to a TPM without a resource manager may meet
contexts of others, which are flushed once and the act repeated.

```
tpm:0x81010001          a P-256 key at a persistent handle
tpm:0x81010003          32 sealed bytes there, opened by nothing but this TPM
tpm:0x81010003?pcr=7    the same, opened only in the state that PCR 7 speaks of
tpm:0x1500016           a counter; its base lies in the index after it
```
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from sealift.agent import keyobject, log
from sealift.agent.seal import KEY_BYTES
from sealift.agent.surroundings import ENVIRONMENT
from sealift.core.errors import (
    DecryptError,
    KeyUnreadableError,
    MissingToolError,
    SealiftError,
    StateError,
)
from sealift.core.hpke import P256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = [
    "STEPS_MAX",
    "Address",
    "Tool",
    "TpmCounter",
    "TpmDecryptionKey",
    "TpmKey",
    "sealed_key",
]

SECONDS: Final = 30.0
"""How long one act may take; a TPM that makes keys is slow, one that signs is not."""

STEPS_MAX: Final = 64
"""Most steps of one raise: each wears the TPM's memory (device-D28)."""

_ADDRESS = re.compile(r"tpm:(0x[0-9a-fA-F]{7,8})(\?pcr=7)?")
_ERROR = re.compile(rb"\(0x0*([0-9A-Fa-f]+)\)")
_NO_ROOM = frozenset({0x902, 0x903})
_ABSENT = frozenset({0x18B, 0x28B, 0x14A})
_POLICY = frozenset({0x99D, 0x12F})


@dataclass(frozen=True, slots=True)
class Address:
    """Where something lies in the TPM, and whether PCR 7 guards it."""

    handle: str
    pcr: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address that ``settings`` has looked at.

        Raises:
            KeyUnreadableError: it is none.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise KeyUnreadableError(f"{text} is no address in a TPM")
        return cls(found[1].lower(), found[2] is not None)


class RefusedByTpmError(Exception):
    """What the TPM answered: its number, if it said one, and the tool's last words."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(words)
        self.number = number
        self.words = words


@dataclass(frozen=True, slots=True)
class Tool:
    """The ``tpm2`` program, and by which way it reaches the TPM (a TCTI)."""

    command: tuple[str, ...]
    tcti: str

    def __call__(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run one act with ``given`` as its input; what it wrote.

        Raises:
            RefusedByTpmError: the TPM said no. MissingToolError: there is no such
            program. KeyUnreadableError: the TPM cannot be reached.
        """
        try:
            return self._run(arguments, given)
        except RefusedByTpmError as error:
            if error.number not in _NO_ROOM:
                raise
        for what in ("-t", "-l", "-s"):
            self._run(("flushcontext", what), b"")
        return self._run(arguments, given)

    def _run(self, arguments: tuple[str, ...], given: bytes) -> bytes:
        import subprocess

        with _input(given) as source:
            try:
                done = subprocess.run(
                    [*self.command, *arguments],
                    stdin=source,
                    capture_output=True,
                    env={**ENVIRONMENT, "TPM2TOOLS_TCTI": self.tcti},
                    cwd="/",
                    timeout=SECONDS,
                    check=False,
                )
            except FileNotFoundError as error:
                raise MissingToolError(
                    f"keys in a TPM need {self.command[0]}",
                    hint="apt-get install tpm2-tools, or see [tpm] tool",
                ) from error
            except (OSError, subprocess.SubprocessError) as error:
                raise KeyUnreadableError(f"{self.command[0]}: {error}") from error
        if done.returncode:
            raise self._refusal(done.stderr)
        return done.stdout

    def _refusal(self, complaint: bytes) -> Exception:
        if b"tcti" in complaint.lower() and not _ERROR.search(complaint):
            return self._unreachable(complaint)
        if b"Could not load tcti" in complaint or b"to instantiate TCTI" in complaint:
            return self._unreachable(complaint)
        numbers = _ERROR.findall(complaint)
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        words = lines[-2] if len(lines) > 1 else "".join(lines)
        return RefusedByTpmError(int(numbers[-1], 16) if numbers else 0, words[:200])

    def _unreachable(self, complaint: bytes) -> KeyUnreadableError:
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        return KeyUnreadableError(
            f"the TPM cannot be reached by {self.tcti}",
            hint="is the device there, and may this user open it (group tss)? "
            "see [tpm] tcti",
            said="".join(last)[:200],
        )


@contextmanager
def _input(given: bytes) -> Iterator[int]:
    """A file in memory: some commands of ``tpm2`` want one they can seek in."""
    file = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        os.write(file, given)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def refused(
    error: RefusedByTpmError, what: str, kind: type[SealiftError] = KeyUnreadableError
) -> SealiftError:
    """The refusal in our words."""
    if error.number in _ABSENT:
        return kind(
            f"the TPM has no {what}",
            hint="sealift-agent keys make; or the TPM was cleared, or is another one",
        )
    if error.number in _POLICY:
        return kind(
            f"the TPM does not open the {what}: PCR 7 is not as it was, or the address "
            "lacks or has ?pcr=7",
            hint="Secure Boot keys or state changed: docs/agent.md, section Old state "
            "and lost keys, says the way back",
        )
    return kind(f"{what}: the TPM refused: {error.words}")


# ── keys ─────────────────────────────────────────────────────────────────────────────
class TpmKey:
    """A P-256 key that signs reports and never leaves the TPM."""

    def __init__(self, tool: Tool, address: str) -> None:
        """Ask for its public half.

        Raises:
            KeyUnreadableError: there is no P-256 key. MissingToolError: no program.
        """
        self._tool = tool
        self._handle = Address.parse(address).handle
        self._what = f"report key at {self._handle}"
        self._public = keyobject.key_object(_public(tool, self._handle, self._what))

    @property
    def key_id(self) -> str:
        """Lower hex SHA-256 of the canonical public key object."""
        return keyobject.key_id(self._public)

    def public(self) -> Mapping[str, object]:
        """The public key as a TUF key object."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256 as DER.

        Raises:
            KeyUnreadableError: the TPM does not sign.
        """
        digest = hashlib.sha256(data).digest()
        return _asked(
            self._what,
            lambda: self._tool(
                *("sign", "-Q", "-c", self._handle, "-g", "sha256", "-d"),
                *("-f", "plain", "-o", "/dev/stdout", "/dev/stdin"),
                given=digest,
            ),
        )


class TpmDecryptionKey:
    """A P-256 key that content keys are wrapped to, by ``ECDH_ZGen``."""

    kem = P256

    def __init__(self, tool: Tool, address: str) -> None:
        """Remember where it lies.

        Raises:
            KeyUnreadableError: the address is none.
        """
        self._tool = tool
        self._handle = Address.parse(address).handle
        self._what = f"decryption key at {self._handle}"

    @cached_property
    def public(self) -> bytes:
        """The public key as an uncompressed point."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        found = _public(self._tool, self._handle, self._what)
        return found.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def dh(self, enc: bytes) -> bytes:
        """The x coordinate of the shared point; the caller has checked the point.

        Raises:
            DecryptError: ``enc`` is no point. KeyUnreadableError: the TPM refuses.
        """
        if len(enc) != 65 or enc[0] != 4:
            raise DecryptError("a wrapped key has no point of its curve")
        point = b"\0\x20" + enc[1:33] + b"\0\x20" + enc[33:]
        found = _asked(
            self._what,
            lambda: self._tool(
                *("ecdhzgen", "-Q", "-c", self._handle),
                *("-u", "/dev/stdin", "-o", "/dev/stdout"),
                given=len(point).to_bytes(2, "big") + point,
            ),
        )
        length = int.from_bytes(found[2:4], "big")
        return found[4 : 4 + length].rjust(32, b"\0")


def sealed_key(tool: Tool, address: str) -> bytes:
    """The 32 bytes that are sealed under the storage hierarchy.

    Raises:
        KeyUnreadableError: there is nothing, or PCR 7 is not as it was.
    """
    place = Address.parse(address)
    what = f"store key at {place.handle}"
    guard = ("-p", "pcr:sha256:7") if place.pcr else ()
    found = _asked(what, lambda: tool("unseal", "-Q", "-c", place.handle, *guard))
    if len(found) != KEY_BYTES:
        raise KeyUnreadableError(f"the {what} has {len(found)} bytes, not {KEY_BYTES}")
    return found


def _public(tool: Tool, handle: str, what: str) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        SECP256R1,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = _asked(
        what,
        lambda: tool(
            "readpublic", "-Q", "-c", handle, "-f", "pem", "-o", "/dev/stdout"
        ),
    )
    try:
        found = load_pem_public_key(pem)
    except ValueError as error:
        raise KeyUnreadableError(f"the {what} is of no known kind") from error
    if isinstance(found, EllipticCurvePublicKey) and isinstance(found.curve, SECP256R1):
        return found
    raise KeyUnreadableError(f"the {what} is not P-256")


def _asked(
    what: str,
    act: Callable[[], bytes],
    kind: type[SealiftError] = KeyUnreadableError,
) -> bytes:
    try:
        return act()
    except RefusedByTpmError as error:
        raise refused(error, what, kind) from error
    except KeyUnreadableError as error:
        raise kind(error.message, hint=error.hint) from error


# ── counter ──────────────────────────────────────────────────────────────────────────
class TpmCounter:
    """:class:`~sealift.agent.ports.Counter` in NV memory.

    A fresh counter starts above whatever counter that TPM ever had, so what it said
    when it was made is kept as its *base* in the index after it, locked for good.
    """

    def __init__(self, tool: Tool, address: str) -> None:
        """Remember where it lies.

        Raises:
            KeyUnreadableError: the address is none.
        """
        self._tool = tool
        self.index = Address.parse(address).handle
        self.base_index = hex(int(self.index, 16) + 1)

    def value(self) -> int:
        """The lowest release counter the hardware still accepts.

        Raises:
            StateError: there is no such counter, or it has no base.
        """
        found = self._read(self.index) - self._base
        if found < 0:
            raise StateError(
                f"the TPM counter {self.index} lies below its base",
                hint="it was made anew: remove both indices, sealift-agent keys make",
            )
        return found

    def advance(self, counter: int) -> None:
        """Raise it to ``counter`` in steps of one; nothing if it is there or above.

        Further than ``STEPS_MAX`` it is left where it is, as each step wears the TPM;
        the record of the floors holds, and ``status`` says that this one lags.

        Raises:
            StateError: it cannot be raised.
        """
        steps = counter - self.value()
        if steps > STEPS_MAX:
            log.write(
                "error",
                "counter",
                message=f"{self.index} is left {steps} steps below {counter}",
            )
            return
        for _ in range(steps):
            _asked(
                f"counter {self.index}",
                lambda: self._tool("nvincrement", "-Q", "-C", self.index, self.index),
                StateError,
            )

    @cached_property
    def _base(self) -> int:
        return self._read(self.base_index)

    def _read(self, index: str) -> int:
        raw = _asked(
            f"counter {self.index}",
            lambda: self._tool("nvread", "-s", "8", "-C", index, index),
            StateError,
        )
        return int.from_bytes(raw, "big")
