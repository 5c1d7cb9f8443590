"""What sealing costs: bytes sealed and opened, a range of 4 KiB, keys wrapped.

All of it in memory and by CPU time of this process, so a busy machine does not matter
much. `seal` and `open` are 64 MiB, opened in runs of 4 chunks as the agent does;
`open_64_chunks` shows what larger runs cost (their buffers go back to the system each
time), `seal_file` also hashes what it writes. A range is 4 KiB anywhere in those
64 MiB, by the two chunks at most that hold it, with the key set up anew.

Peers in the same run: the Cobblestone recipe of `cryptography` (it has no random
access), its HPKE recipe, and pyrage (age: ChaCha20-Poly1305 in chunks of 64 KiB) where
that is installed. Rates are MB/s of plain bytes, 10^6; ratios are ours over theirs.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BytesIO, RawIOBase
from statistics import median
from typing import BinaryIO, cast

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hpke as recipe
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from benchmarks.common import MIB, Result, ratio, run
from sealift.core.encryption import (
    CHUNK,
    PREFIX,
    TAG,
    Opener,
    Sealer,
    sealed_length,
    sealed_range,
    unwrap,
    wrap,
)
from sealift.core.hpke import KEMS, PrivateKey, new_private
from sealift.payload.sealing import seal_file

LENGTH = 64 * MIB
KEY, SALT, CONTEXT = bytes(range(32)), bytes(24), b"sealift/payload/1\0"
INFO = bytes(120)
TIMES = 5
RANGES = 2000
WRAPS = 500


def measure() -> Result:
    """Measure sealing, opening, ranges and wraps, beside their peers."""
    result = Result("sealing")
    plain = random.Random(1).randbytes(MIB) * (LENGTH // MIB)
    sealed = _payloads(result, plain)
    _age(result, plain)
    result.figures["range_4k_us"] = round(_range_us(sealed), 1)
    result.figures["overhead_percent"] = round(100 * (len(sealed) / LENGTH - 1), 3)
    for kem in KEMS:
        _wraps(result, kem)
    return result


# ── payloads ─────────────────────────────────────────────────────────────────────────
def _payloads(result: Result, plain: bytes) -> bytes:
    sealed = b"".join(_sealed(plain))
    theirs = result.peers.setdefault("cryptography Cobblestone", {})
    ours = {
        "seal": _rate(lambda: deque(_sealed(plain), maxlen=0)),
        "seal_file": _rate(lambda: _file(plain)),
        "open": _rate(lambda: _opened(sealed, 4)),
        "open_64_chunks": _rate(lambda: _opened(sealed, 64)),
    }
    peers = {
        "seal": _rate(lambda: _recipe(Cobblestone256Encryptor, plain)),
        "open": _rate(lambda: _recipe(Cobblestone256Decryptor, sealed)),
    }
    for name, found in ours.items():
        result.figures[f"{name}_mb_per_s"] = round(found, 1)
    for name, found in peers.items():
        theirs[f"{name}_mb_per_s"] = round(found, 1)
        result.ratios[f"{name}_vs_cobblestone"] = ratio(ours[name], found)
    return sealed


def _sealed(plain: bytes) -> Iterator[bytes]:
    sealer = Sealer(KEY, CONTEXT, SALT)
    yield sealer.prefix
    for k, at in enumerate(range(0, len(plain) + 1, CHUNK)):
        yield sealer.seal(k, plain[at : at + CHUNK])


class _Nowhere(RawIOBase):
    """A file that forgets."""

    def write(self, data: object) -> int:
        return len(data)  # type: ignore[arg-type]


def _file(plain: bytes) -> None:
    out = cast("BinaryIO", _Nowhere())
    seal_file(BytesIO(plain), out, content_key=KEY, context=CONTEXT, salt=SALT)


def _opened(sealed: bytes, chunks: int) -> None:
    opener = Opener(KEY, CONTEXT, sealed[:PREFIX], len(sealed))
    step = chunks * (CHUNK + TAG)
    for number, at in enumerate(range(PREFIX, len(sealed), step)):
        opener.open(number * chunks, sealed[at : at + step])


def _recipe(
    kind: type[Cobblestone256Encryptor | Cobblestone256Decryptor], data: bytes
) -> None:
    worker = kind(KEY, CONTEXT)
    for at in range(0, len(data), MIB):
        worker.update(data[at : at + MIB])
    worker.finalize()


def _range_us(sealed: bytes) -> float:
    """The median of ranges of 4 KiB, each with a check of the commitment before it."""
    draw, times = random.Random(2), []
    for _ in range(RANGES):
        start = draw.randrange(LENGTH - 4096)
        began = time.process_time()
        first, last = sealed_range(start, start + 4096, LENGTH)
        opener = Opener(KEY, CONTEXT, sealed[:PREFIX], sealed_length(LENGTH))
        opener.open(start // CHUNK, sealed[first:last])
        times.append(time.process_time() - began)
    return median(times) * 1e6


def _age(result: Result, plain: bytes) -> None:
    if find_spec("pyrage") is None:
        result.peers["pyrage"] = {"installed": False}
        return
    import pyrage  # type: ignore[import-not-found,unused-ignore]

    identity = pyrage.x25519.Identity.generate()
    sealed = pyrage.encrypt(plain, [identity.to_public()])
    found = {
        "seal": _rate(lambda: pyrage.encrypt(plain, [identity.to_public()])),
        "open": _rate(lambda: pyrage.decrypt(sealed, [identity])),
    }
    result.peers["pyrage"] = {f"{k}_mb_per_s": round(v, 1) for k, v in found.items()}
    for name, rate in found.items():
        ours = result.figures[f"{name}_mb_per_s"]
        assert isinstance(ours, float)
        result.ratios[f"{name}_vs_pyrage"] = ratio(ours, rate)


# ── keys ─────────────────────────────────────────────────────────────────────────────
def _wraps(result: Result, kem: str) -> None:
    own = PrivateKey(kem, new_private(kem, os.urandom))
    ephemeral = new_private(kem, os.urandom)
    data = wrap(kem, own.public, KEY, INFO, ephemeral)
    ours = {
        "wrap": _us(lambda: wrap(kem, own.public, KEY, INFO, _fresh(kem))),
        "unwrap": _us(lambda: unwrap(kem, own.public, own.dh, data, INFO)),
    }
    suite, private = _suite(kem)
    sealed = suite.encrypt(KEY, private.public_key(), INFO)
    theirs = {
        "wrap": _us(lambda: suite.encrypt(KEY, private.public_key(), INFO)),
        "unwrap": _us(lambda: suite.decrypt(sealed, private, INFO)),
    }
    peer = result.peers.setdefault("cryptography HPKE", {})
    for name, found in ours.items():
        result.figures[f"{kem}_{name}_us"] = round(found, 1)
        peer[f"{kem}_{name}_us"] = round(theirs[name], 1)
        result.ratios[f"{kem}_{name}_vs_hpke"] = ratio(found, theirs[name])
    result.figures[f"{kem}_wraps_per_s"] = round(1e6 / ours["wrap"])


def _fresh(kem: str) -> bytes:
    return new_private(kem, os.urandom)


def _suite(
    kem: str,
) -> tuple[recipe.Suite, x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey]:
    kdf, aead = recipe.KDF.HKDF_SHA256, recipe.AEAD.AES_256_GCM
    if kem == "p256":
        private = ec.generate_private_key(ec.SECP256R1())
        return recipe.Suite(recipe.KEM.P256, kdf, aead), private
    x = x25519.X25519PrivateKey.generate()
    return recipe.Suite(recipe.KEM.X25519, kdf, aead), x


# ── clocks ───────────────────────────────────────────────────────────────────────────
def _rate(work: Callable[[], object]) -> float:
    """MB/s of plain bytes, the median of a few."""
    return LENGTH / 1e6 / median(_seconds(work) for _ in range(TIMES))


def _us(work: Callable[[], object]) -> float:
    """Microseconds of one call, from the median of a few hundred in a row."""

    def many() -> None:
        for _ in range(WRAPS):
            work()

    return median(_seconds(many) for _ in range(TIMES)) / WRAPS * 1e6


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    run(measure)
