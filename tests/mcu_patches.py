"""A writer of microcontroller patches that writes what no honest writer would."""

from __future__ import annotations


def size(value: int) -> bytes:
    sign, value = (0x40, -value) if value < 0 else (0, value)
    out = bytearray([value & 0x3F | sign])
    value >>= 6
    while value:
        out[-1] |= 0x80
        out.append(value & 0x7F)
        value >>= 7
    return bytes(out)


def literals(plain: bytes) -> bytes:
    """A heatshrink stream without one back reference."""
    bits = "".join(f"1{byte:08b}" for byte in plain)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def tokens(*runs: tuple[int, int] | int, window: int = 8, lookahead: int = 7) -> bytes:
    """A heatshrink stream of bytes and (back, length) references."""
    bits = ""
    for run in runs:
        if isinstance(run, int):
            bits += f"1{run:08b}"
        else:
            bits += f"0{run[0] - 1:0{window}b}{run[1] - 1:0{lookahead}b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def sequential(ops: bytes, image: int, stream: bytes | None = None) -> bytes:
    body = literals(size(0) + ops) if stream is None else stream
    return b"\x04" + size(image) + b"\x44" + body


def op(difference: bytes = b"", literal: bytes = b"", move: int = 0) -> bytes:
    counted = size(len(difference)) + difference + size(len(literal)) + literal
    return counted + size(move)
