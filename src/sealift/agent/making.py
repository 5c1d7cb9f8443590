"""``sealift-agent keys make``: a device makes its own keys, and tells what is public.

Whatever is there already is kept, so it can be run again after a cut. What it prints
holds no secret; ``sealift device provision --keys`` takes it as it is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent import keys, settings
from sealift.agent.seal import KEY_BYTES
from sealift.agent.tpm import Address, RefusedByTpmError, refused
from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    TrustAnchorError,
)
from sealift.core.hpke import P256, X25519, PrivateKey, Recipient, new_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.config import Tpm
    from sealift.agent.tpm import Tool

Facts = dict[str, object]

_BOUND = "fixedtpm|fixedparent|noda"
_KEY = f"{_BOUND}|sensitivedataorigin|userwithauth"
_TEMPLATES = {
    "sign": ("ecc256:ecdsa-sha256", f"{_KEY}|sign"),
    "decrypt": ("ecc256:ecdh-sha256", f"{_KEY}|decrypt"),
}
_COUNTER = "ownerread|ownerwrite|authread|authwrite|no_da|nt=counter"
_BASE = "ownerread|ownerwrite|authread|authwrite|no_da|writedefine"


def make(
    report_key: str, decryption_key: str, store_key: str, counter: str, tpm: Tpm
) -> Facts:
    """Make what is named and not there yet; an empty text names nothing.

    Raises:
        KeyUnreadableError, PassphraseError, TrustAnchorError, InvalidConfigError,
        MissingToolError, StateError: it cannot be made or used.
    """
    _check(report_key, decryption_key, store_key, counter)
    found: Facts = {}
    if report_key:
        found["key_store"] = keys.kind(report_key)
        _make(report_key, "sign", tpm)
        key = keys.report_key(report_key, tpm)
        found |= {"report_key": dict(key.public()), "report_key_id": key.key_id}
    if decryption_key:
        _make(decryption_key, "decrypt", tpm)
        theirs = keys.decryption_key(decryption_key, tpm)
        recipient = Recipient(theirs.kem, theirs.public)
        found |= {"decryption_key": recipient.to_json(), "kid": recipient.kid}
    if store_key:
        _make(store_key, "store", tpm)
        keys.store_key(store_key, tpm)  # it opens
    if counter:
        _make_counter(counter, keys.tool(tpm))
        found["counter"] = _value(counter, tpm)
    named = {
        "report_key": report_key,
        "decryption_key": decryption_key,
        "store_key": store_key,
        "counter": counter,
    }
    found["places"] = {name: place for name, place in named.items() if place}
    return found


def _check(report_key: str, decryption_key: str, store_key: str, counter: str) -> None:
    forms = (
        (settings.optional_key, report_key),
        (settings.optional_key, decryption_key),
        (settings.store_key, store_key),
        (settings.counter, counter),
    )
    for form, place in forms:
        try:
            form(place)
        except ValueError as error:
            raise InvalidConfigError(f"{place} {error}") from error


def _value(place: str, tpm: Tpm) -> int:
    found = keys.counter(place, tpm)
    return found.value() if found else 0


def _make(place: str, use: str, tpm: Tpm) -> None:
    if keys.kind(place) == keys.TPM:
        _make_in_tpm(place, use, keys.tool(tpm))
    elif keys.kind(place) == keys.TOKEN:
        from sealift.agent import pkcs11

        pkcs11.make(place, use)
    else:
        _make_file(place, use)


# ── files ────────────────────────────────────────────────────────────────────────────
def _make_file(path: str, use: str) -> None:
    """A key in a file of mode 0600, durable, whole or not there."""
    if os.path.lexists(path):
        return  # whoever reads it says whether it is one
    draft = f"{path}.new-{os.getpid()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, 0o600)
            stream.write(_content(use))
            stream.flush()
            os.fsync(descriptor)
        os.rename(draft, path)
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise TrustAnchorError(
            f"key file {path} cannot be made: {error.strerror}",
            hint="its directory must exist and be ours",
            path=path,
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)


def _content(use: str) -> bytes:
    if use == "store":
        return os.urandom(KEY_BYTES).hex().encode() + b"\n"
    kem = P256 if use == "sign" else X25519
    return PrivateKey(kem, new_private(kem, os.urandom)).pem()


# ── TPM ──────────────────────────────────────────────────────────────────────────────
def _make_in_tpm(place: str, use: str, tool: Tool) -> None:
    """A child of the storage primary, made persistent; contexts flushed (D29)."""
    address = Address.parse(place)
    what = f"{use} key at {address.handle}"
    with _translated(what):
        if _is_there(lambda: tool("readpublic", "-Q", "-c", address.handle)):
            return
        with _scratch() as scratch:
            public, private = str(scratch / "public"), str(scratch / "private")
            parent, child = str(scratch / "parent"), str(scratch / "child")
            made = ("create", "-Q", "-C", parent, "-u", public, "-r", private)
            _flushed(
                tool, "createprimary", "-Q", "-C", "o", "-G", "ecc256", "-c", parent
            )
            if use == "store":
                _seal(tool, address, made, scratch)
            else:
                template, attributes = _TEMPLATES[use]
                _flushed(tool, *made, "-G", template, "-a", attributes)
            loaded = ("load", "-Q", "-C", parent, "-u", public, "-r", private)
            _flushed(tool, *loaded, "-c", child)
            kept = ("evictcontrol", "-Q", "-C", "o", "-c", child, address.handle)
            _flushed(tool, *kept)


def _seal(tool: Tool, address: Address, made: tuple[str, ...], scratch: Path) -> None:
    """32 random bytes, and PCR 7 as their guard if the address says so (D31)."""
    guard: tuple[str, ...] = ("-a", f"{_BOUND}|userwithauth")
    if address.pcr:
        policy = str(scratch / "policy")
        _flushed(
            tool, "createpolicy", "-Q", "--policy-pcr", "-l", "sha256:7", "-L", policy
        )
        guard = ("-a", _BOUND, "-L", policy)
    _flushed(tool, *made, *guard, "-i", "-", given=os.urandom(KEY_BYTES))


def _make_counter(place: str, tool: Tool) -> None:
    """Counter and base (D28): defined, begun, and the base locked for good."""
    index = Address.parse(place).handle
    base = hex(int(index, 16) + 1)
    with _translated(f"counter {index}"):
        if not _is_there(lambda: tool("nvreadpublic", index)):
            tool("nvdefine", "-Q", index, "-C", "o", "-s", "8", "-a", _COUNTER)
        if not _is_there(lambda: tool("nvreadpublic", base)):
            tool("nvdefine", "-Q", base, "-C", "o", "-s", "8", "-a", _BASE)
        if _is_there(lambda: tool("nvread", "-s", "8", "-C", base, base)):
            with contextlib.suppress(RefusedByTpmError):  # locked before the cut, then
                tool("nvwritelock", "-Q", "-C", base, base)
            return
        if not _is_there(lambda: tool("nvread", "-s", "8", "-C", index, index)):
            tool("nvincrement", "-Q", "-C", index, index)
        begun = tool("nvread", "-s", "8", "-C", index, index)
        with _scratch() as scratch:
            (scratch / "base").write_bytes(begun)
            tool("nvwrite", "-Q", "-C", base, "-i", str(scratch / "base"), base)
        tool("nvwritelock", "-C", base, base)


def _flushed(tool: Tool, *arguments: str, given: bytes = b"") -> None:
    try:
        tool(*arguments, given=given)
    finally:
        tool("flushcontext", "-t")


def _is_there(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except RefusedByTpmError:
        return False
    return True


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory in memory for contexts, which are nothing without this TPM."""
    memory = "/dev/shm"  # noqa: S108  made with mode 0700 and a name of its own
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sealift-keys-", dir=place) as found:
        yield Path(found)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except RefusedByTpmError as error:
        found = refused(error, what)
        raise KeyUnreadableError(
            found.message, hint="is the handle or index free, and owner auth empty?"
        ) from error
