"""Device trees and FIT images: walked without their images, refused when ambiguous."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from sealift.core import fdt
from sealift.core.errors import LimitError, MalformedError
from sealift.core.fdt import Begin, End, Fdt, Fit, Property, boot_arguments, read_fit
from sealift.sim.boot_files import fit_file, fit_tree, tree_file

FIT = fit_file("quiet", "debug")


def reader(raw: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: raw[offset : offset + length]


def tree(raw: bytes) -> Fdt:
    return Fdt(reader(raw), len(raw))


def fit(raw: bytes) -> Fit:
    return read_fit(reader(raw), len(raw))


def put(at: int, value: int, raw: bytes = FIT) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(">I", changed, at, value)
    return bytes(changed)


# ── trees ────────────────────────────────────────────────────────────────────────────
def test_the_tokens_in_their_order() -> None:
    """Begin, properties, nodes, end; values stay where they are."""
    found = tree(tree_file({"a": "x", "sub": {"b": 7}}))
    kinds = [type(event) for event in found.events()]
    assert kinds == [Begin, Property, Begin, Property, End, End]
    values = [event for event in found.events() if isinstance(event, Property)]
    assert found.text(values[0].value) == "x"
    assert found.value(values[1].value) == b"\0\0\0\7"


def test_nothing_between_the_tokens_counts() -> None:
    """A token that says nothing is passed over."""
    raw = tree_file({"a": "x"})
    at = raw.index(struct.pack(">I", 3) + struct.pack(">I", 2))
    nothing = struct.pack(">I", 4) * 4
    found = tree(put(at, 4, raw=raw[:at] + nothing + raw[at + 16 :]))
    assert [type(event) for event in found.events()] == [Begin, End]


def test_large_values_are_not_read() -> None:
    """A FIT of 32 MiB is understood in less than a hundredth of it."""
    large: Any = fit_tree("quiet")
    large["images"]["kernel"]["data"] = bytes(32 << 20)
    raw = tree_file(large)
    tracemalloc.start()
    assert fit(raw).images["kernel"].data.length == 32 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18


@pytest.mark.parametrize(
    ("made", "line"),
    [
        ({"chosen": {"bootargs": "quiet panic=3"}}, "quiet panic=3"),
        ({"chosen": {"stdout-path": "x"}}, None),
        ({"aliases": {"bootargs": "x"}, "bootargs": "y"}, None),
        ({"a": {"chosen": {"bootargs": "x"}}}, None),
        ({"chosen": {"more": {"bootargs": "x"}}}, None),
    ],
)
def test_boot_arguments(made: dict[str, Any], line: str | None) -> None:
    """Those of /chosen and of no other node."""
    assert boot_arguments(tree(tree_file(made))) == line


@pytest.mark.parametrize(
    "made",
    [
        {"chosen@0": {"bootargs": "x"}, "chosen": {"bootargs": "y"}},
        {"chosen@0": {}, "chosen": {"bootargs": "y"}},
        {"chosen": {"bootargs": ["x", "y"]}},
        {"chosen": {"bootargs": b"no end"}},
        {"chosen": {"bootargs": b"\xff\0"}},
    ],
)
def test_c_11_boot_arguments_that_could_be_others(made: dict[str, Any]) -> None:
    """Two nodes a loader may take for /chosen, or no text."""
    with pytest.raises(MalformedError):
        boot_arguments(tree(tree_file(made)))


def test_bootargs_twice_in_one_node() -> None:
    """Readers differ in which of two they take."""
    raw = tree_file({"chosen": {"bootargs": "x", "bootargz": "y"}})
    with pytest.raises(MalformedError):
        boot_arguments(tree(raw.replace(b"bootargz", b"bootargs")))


def test_a_command_line_has_a_limit() -> None:
    """4096 bytes are read, no more."""
    with pytest.raises(LimitError):
        boot_arguments(tree(tree_file({"chosen": {"bootargs": "x" * 4097}})))


BROKEN = {
    "another magic": put(0, 1),
    "a future version": put(24, 18),
    "an old version": put(20, 16),
    "longer than its file": put(4, len(FIT) + 1),
    "shorter than its header": put(4, 20),
    "structure outside": put(36, len(FIT)),
    "structure in the header": put(8, 4),
    "strings outside": put(32, len(FIT)),
    "a header that ends": FIT[:30],
    "no end": put(36, struct.unpack(">I", FIT[36:40])[0] - 4),
    "an unknown token": put(56, 7),
    "an end without a begin": put(56, 2),
    "the end before the root": put(56, 9),
    "a property before the root": put(56, 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_trees(name: str) -> None:
    """Each is refused."""
    with pytest.raises(MalformedError):
        list(tree(BROKEN[name]).events())


def test_values_and_names_outside() -> None:
    """A length beyond the tree, a name beyond the strings, a name without an end."""
    raw = tree_file({"abc": "x"})
    at = raw.index(struct.pack(">2I", 3, 2))
    for other in (
        put(at + 4, 1 << 30, raw=raw),
        put(at + 8, 100, raw=raw),
        put(at + 8, 3, raw=raw),
        raw.replace(b"abc", b"\xff\xff\xff"),
        put(60, 0x41414141, raw=raw[:-4] + b"AAAA"),
    ):
        with pytest.raises(MalformedError):
            list(tree(other).events())


def test_two_roots() -> None:
    """Behind the first there is nothing."""
    raw = tree_file({"a": {}})
    nodes = struct.pack(">2I", 1, 0) + struct.pack(">I", 2)
    at = raw.index(struct.pack(">I", 9), 56)
    longer = raw[:at] + nodes + raw[at:]
    longer = put(4, len(longer), raw=longer)
    longer = put(36, struct.unpack(">I", raw[36:40])[0] + len(nodes), raw=longer)
    longer = put(12, struct.unpack(">I", raw[12:16])[0] + len(nodes), raw=longer)
    with pytest.raises(MalformedError):
        list(tree(longer).events())


@pytest.mark.parametrize("count", [fdt.DEPTH_MAX, fdt.NODES_MAX])
def test_floods(count: int) -> None:
    """Deeper, and more nodes, than any board has."""
    made: dict[str, Any] = {}
    if count == fdt.DEPTH_MAX:
        for _ in range(count):
            made = {"a": made}
    else:
        made = {f"n{number}": {} for number in range(count)}
    with pytest.raises(LimitError):
        list(tree(tree_file(made)).events())


def test_a_flood_of_nothing() -> None:
    """Tokens that say nothing cost time as well."""
    raw = tree_file({"": b""})[:56] + struct.pack(">I", 4) * (fdt.TOKENS_MAX + 1)
    raw = put(4, len(raw), raw=put(36, len(raw) - 56, raw=put(32, 0, raw=raw)))
    with pytest.raises(LimitError):
        list(tree(put(12, 56, raw=raw)).events())


def test_a_flood_of_strings() -> None:
    """The names of all properties have a limit before they are read."""
    with pytest.raises(LimitError):
        tree(tree_file({"x" * 250 + str(n): 1 for n in range(1100)}))


def test_a_name_without_an_end() -> None:
    """Longer than any node's."""
    with pytest.raises(MalformedError):
        list(tree(tree_file({"x" * 300: {}})).events())


# ── FIT ──────────────────────────────────────────────────────────────────────────────
def changed(*path: str, value: object = None, lines: int = 1) -> bytes:
    """A FIT image with one member changed, or taken away."""
    made: Any = fit_tree(*["quiet"] * lines)
    node = made
    for name in path[:-1]:
        node = node[name]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return tree_file(made)


def test_what_a_fit_says() -> None:
    """Images with their places, configurations with what they use and who signed."""
    found = fit(FIT)
    assert found.default == "conf-1"
    assert set(found.images) == {"kernel", "ramdisk", "fdt-1", "fdt-2"}
    kernel = found.images["kernel"]
    assert reader(FIT)(kernel.data.offset, kernel.data.length) == b"kernel"
    assert kernel.hashes == {"hash-1": "sha256"}
    second = found.configurations["conf-2"]
    assert second.uses["fdt"] == ("fdt-2",)
    [signature] = second.signatures
    assert (signature.key, signature.signed) == ("fit", True)
    assert signature.images == ("kernel", "fdt", "ramdisk")


def test_an_image_that_says_no_compression() -> None:
    """It has none."""
    raw = changed("images", "kernel", "compression")
    assert fit(raw).images["kernel"].compression == "none"


@pytest.mark.parametrize("name", ["data-position", "data-offset"])
def test_images_outside_the_tree(name: str) -> None:
    """At a place of the file, or behind the tree."""
    made: Any = fit_tree("quiet")
    kernel = made["images"]["kernel"]
    del kernel["data"]
    kernel |= {name: 0, "data-size": 6}
    size = len(tree_file(made))
    if name == "data-position":
        kernel[name] = size
    raw = tree_file(made) + bytes(-size % 4) + b"kernel"
    place = fit(raw).images["kernel"].data
    if name == "data-offset":
        assert reader(raw)(place.offset, place.length) == b"kernel"
    else:
        assert place.offset == size
    with pytest.raises(MalformedError):
        fit(raw[:-1] if name == "data-offset" else tree_file(made))


WRONG = {
    "no images": changed("images"),
    "no configurations": changed("configurations"),
    "no default": changed("configurations", "default"),
    "another default": changed("configurations", "default", value="conf-9"),
    "an image that is not there": changed(
        "configurations", "conf-1", "kernel", value="kernel-2"
    ),
    "an image without a type": changed("images", "kernel", "type"),
    "an image without data": changed("images", "kernel", "data"),
    "data twice": changed("images", "kernel", "data-offset", value=0),
    "a unit address": changed("images", "kernel@1", value={"type": "x"}),
    "an empty name": changed("images", "", value={"type": "x"}),
    "a hash without an algorithm": changed("images", "kernel", "hash-1", "algo"),
    "a signature of nothing": changed("configurations", "conf-1", "signature", "algo"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_fit(name: str) -> None:
    """Each is refused."""
    with pytest.raises(MalformedError):
        fit(WRONG[name])


def test_a_name_twice() -> None:
    """Two nodes, or two properties, of one name in one node."""
    made: Any = fit_tree("quiet")
    made["images"]["kernel-x"] = made["images"]["kernel"]
    twice = tree_file(made).replace(b"kernel-x\0\0\0\0", b"kernel\0\0\0\0\0\0")
    assert twice != tree_file(made)
    with pytest.raises(MalformedError):
        fit(twice)


def test_a_number_that_is_none() -> None:
    """A place of eight bytes, where four belong."""
    made: Any = fit_tree("quiet")
    del made["images"]["kernel"]["data"]
    made["images"]["kernel"] |= {"data-position": bytes(8), "data-size": 1}
    with pytest.raises(MalformedError):
        fit(tree_file(made))


@pytest.mark.parametrize("gone", ["data-position", "data-size"])
def test_a_place_that_is_not_told(gone: str) -> None:
    """An image outside the tree says where, and how long it is."""
    made: Any = fit_tree("quiet")
    kernel = made["images"]["kernel"]
    del kernel["data"]
    kernel |= {"data-position": 1000, "data-size": 1}
    del kernel[gone]
    with pytest.raises(MalformedError):
        fit(tree_file(made))


def test_more_nodes_than_a_fit_has() -> None:
    """A tree as large as a board's is no FIT."""
    made: Any = {"images": {f"n{n}": {} for n in range(fdt.FIT_NODES_MAX)}}
    with pytest.raises(LimitError):
        fit(tree_file(made))


def test_a_text_that_is_several() -> None:
    """Where one belongs."""
    with pytest.raises(MalformedError):
        fit(changed("configurations", "default", value=["conf-1", "conf-1"]))
