"""Flattened device trees, and the FIT images of U-Boot that are written as such.

A tree is a header, a block of strings, and a block of tokens: nodes begin and end, and
properties carry values (the Devicetree Specification, chapter 5). :class:`Fdt` walks
the tokens through a small window and never reads a value unless it is asked to, for
the images of a FIT are values of many megabytes. So memory does not grow with it.

A FIT says in ``/configurations`` which of its ``/images`` belong together. What a
loader believes is the signature on a configuration; it covers the images that
``sign-images`` names and only these (FIT specification; device-D25). :class:`Fit`
therefore gives each configuration with what it uses, and reads nothing by a name that
is there twice or has a unit address: loaders have been led to another node of a similar
name than the one that was verified (C-11, CVE-2021-27097, CVE-2021-27138).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sealift.core.errors import LimitError, MalformedError

DEPTH_MAX: Final = 32
NODES_MAX: Final = 20_000
"""Nodes of the largest tree; boards of today have a few thousand."""
TOKENS_MAX: Final = 1 << 19
"""Tokens of the largest tree, among them all properties and what says nothing."""
FIT_NODES_MAX: Final = 512
STRINGS_MAX: Final = 1 << 18
NAME_MAX: Final = 256
TEXT_MAX: Final = 4096
"""Bytes of a text that is read: a command line is the longest."""

ReadAt = Callable[[int, int], bytes]
"""``read(offset, length)`` gives those bytes, fewer only where the file ends."""

_MAGIC: Final = 0xD00DFEED
_HEADER: Final = struct.Struct(">10I")
_BEGIN, _END, _PROPERTY, _NOP, _FINISH = 1, 2, 3, 4, 9
_WINDOW: Final = 4096


@dataclass(frozen=True, slots=True)
class Value:
    """Where the value of a property lies."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Begin:
    """A node begins; its token is at ``at``."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Property:
    """A property of the node that began last and has not ended."""

    name: str
    value: Value
    at: int


@dataclass(frozen=True, slots=True)
class End:
    """The node that began last ends."""

    at: int


Event = Begin | Property | End


class Fdt:
    """One tree in ``length`` bytes at ``read``; ``size`` is what it takes of them,
    ``strings`` where the names of properties lie.

    Raises:
        MalformedError: not a device tree of version 17. LimitError: too many strings.
    """

    def __init__(self, read: ReadAt, length: int) -> None:
        self._read = read
        header = _HEADER.unpack(_exactly(read, 0, _HEADER.size))
        (
            magic, self.size, self._structure, strings, _, version, compatible, _,
            strings_size, structure_size,
        ) = header  # fmt: skip
        if magic != _MAGIC or version < 17 or compatible > 17:
            raise MalformedError("fdt: not a device tree of version 17")
        if not _HEADER.size <= self.size <= length:
            raise MalformedError("fdt: the tree is longer than its file")
        for start, size in ((self._structure, structure_size), (strings, strings_size)):
            if not _HEADER.size <= start <= start + size <= self.size:
                raise MalformedError("fdt: a block lies outside the tree")
        if strings_size > STRINGS_MAX:
            raise LimitError("fdt: too many strings")
        self._end = self._structure + structure_size
        self.strings = Value(strings, strings_size)
        self._strings = _exactly(read, strings, strings_size)

    def events(self) -> Iterator[Event]:
        """The tokens in their order, from the root's begin to its end.

        Raises:
            MalformedError: tokens that make no tree. LimitError: too deep or too many.
        """
        at, depth, nodes = self._structure, 0, 0
        window = _Window(self._read, self._end)
        for _ in range(TOKENS_MAX):
            token, start = window.number(at), at
            at += 4
            if token == _BEGIN:
                name = window.text(at)
                depth, nodes = depth + 1, nodes + 1
                if depth > DEPTH_MAX or nodes > NODES_MAX:
                    raise LimitError("fdt: too many nodes, or too deep")
                if depth == 1 and nodes > 1:
                    raise MalformedError("fdt: two roots")
                at += _aligned(len(name) + 1)
                yield Begin(name.decode("ascii"), start)
            elif token == _PROPERTY and depth:
                length, string = window.number(at), window.number(at + 4)
                at += 8
                if length > self._end - at:
                    raise MalformedError("fdt: a value outside the tree")
                yield Property(self._string(string), Value(at, length), start)
                at += _aligned(length)
            elif token == _END and depth:
                depth -= 1
                yield End(start)
            elif token == _FINISH and not depth and nodes:
                return
            elif token != _NOP:
                raise MalformedError("fdt: a token where it cannot stand")
        raise LimitError("fdt: too many tokens")

    def value(self, found: Value, limit: int = TEXT_MAX) -> bytes:
        """The bytes of a value.

        Raises:
            LimitError: more than ``limit``.
        """
        if found.length > limit:
            raise LimitError(f"fdt: a value of {found.length} bytes")
        return _exactly(self._read, found.offset, found.length)

    def texts(self, found: Value, limit: int = TEXT_MAX) -> tuple[str, ...]:
        """The texts of a value, each of which ends in NUL.

        Raises:
            MalformedError: not such a list. LimitError: more than ``limit`` bytes.
        """
        raw = self.value(found, limit)
        if not raw.endswith(b"\0") or not raw.isascii():
            raise MalformedError("fdt: a value that is no text")
        return tuple(raw[:-1].decode("ascii").split("\0"))

    def text(self, found: Value, limit: int = TEXT_MAX) -> str:
        """The one text of a value.

        Raises:
            MalformedError: not one text. LimitError: more than ``limit`` bytes.
        """
        texts = self.texts(found, limit)
        if len(texts) != 1:
            raise MalformedError("fdt: several texts where one belongs")
        return texts[0]

    def _string(self, at: int) -> str:
        end = self._strings.find(b"\0", at, at + NAME_MAX)
        if at >= len(self._strings) or end <= at:
            raise MalformedError("fdt: a property without a name")
        return _ascii(self._strings[at:end]).decode("ascii")


def boot_arguments(tree: Fdt) -> str | None:
    """``/chosen/bootargs``: the command line a kernel gets with this tree, if any.

    Raises:
        MalformedError: two nodes a loader could take for ``/chosen``, the property
            twice, or no text. LimitError: too long.
    """
    path: list[str] = []
    chosen, found = 0, []
    for event in tree.events():
        if isinstance(event, Begin):
            path.append(event.name.partition("@")[0] if len(path) == 1 else event.name)
            chosen += len(path) == 2 and path[1] == "chosen"
        elif isinstance(event, End):
            path.pop()
        elif len(path) == 2 and path[1] == "chosen" and event.name == "bootargs":
            found.append(event.value)
    if chosen > 1 or len(found) > 1:
        raise MalformedError("fdt: /chosen or its bootargs are there twice")
    return tree.text(found[0]) if found else None


# ── small trees, held as a whole ─────────────────────────────────────────────────────
@dataclass(slots=True)
class Node:
    """A node with its properties and children; values stay where they are."""

    name: str
    properties: dict[str, Value] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)


def small_tree(tree: Fdt) -> Node:
    """The root of a tree of few nodes, each name once and without a unit address.

    Raises:
        MalformedError: a name twice in one node, a unit address, or no tree.
        LimitError: more nodes than a FIT has, or too deep.
    """
    root = Node("")
    path: list[Node] = []
    nodes = properties = 0
    for event in tree.events():
        if isinstance(event, End):
            path.pop()
        elif isinstance(event, Begin):
            nodes += 1
            node = Node(event.name) if path else root
            if path:
                _only_once(path[-1].children, event.name)
                path[-1].children[event.name] = node
            path.append(node)
        else:
            properties += 1
            _only_once(path[-1].properties, event.name)
            path[-1].properties[event.name] = event.value
        if nodes > FIT_NODES_MAX or properties > 32 * FIT_NODES_MAX:
            raise LimitError("fdt: more nodes than a FIT image has")
    return root


def _only_once(known: dict[str, Value] | dict[str, Node], name: str) -> None:
    if name in known or "@" in name or not name:
        raise MalformedError(f"fdt: {name!r} is there twice, or has a unit address")


# ── FIT ──────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class FitSignature:
    """What a signature of a configuration says it is; unsigned words, for people."""

    algorithm: str
    key: str
    images: tuple[str, ...]
    """``sign-images``: the kinds of images it covers."""
    nodes: tuple[str, ...]
    """``hashed-nodes``: the paths of the nodes it covers."""
    signed: bool


@dataclass(frozen=True, slots=True)
class FitConfiguration:
    """One configuration: which images it uses, by kind, and who signed that."""

    name: str
    uses: dict[str, tuple[str, ...]]
    signatures: tuple[FitSignature, ...]


@dataclass(frozen=True, slots=True)
class FitImage:
    """One image of a FIT: what it is and where its bytes lie in the file."""

    name: str
    kind: str
    compression: str
    data: Value
    hashes: dict[str, str]
    """Its hash nodes by name, and their algorithms."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A FIT image; ``default`` is the configuration a loader takes by itself."""

    default: str
    images: dict[str, FitImage]
    configurations: dict[str, FitConfiguration]


USES: Final = (
    "kernel", "fdt", "ramdisk", "loadables", "firmware", "script", "fpga", "standalone",
    "setup", "compatible-image",
)  # fmt: skip
"""Properties of a configuration that name images."""


def read_fit(read: ReadAt, length: int) -> Fit:
    """The FIT image in ``length`` bytes at ``read``; image data is not read.

    Raises:
        MalformedError: not a FIT, or one that two readers could understand in two ways.
        LimitError: larger than any FIT.
    """
    tree = Fdt(read, length)
    root = small_tree(tree)
    images, configurations = (
        _child(root, name) for name in ("images", "configurations")
    )
    found = Fit(
        default=_text(tree, configurations, "default"),
        images={
            name: _image(tree, node, length) for name, node in images.children.items()
        },
        configurations={
            name: _configuration(tree, node)
            for name, node in configurations.children.items()
        },
    )
    if found.default not in found.configurations:
        raise MalformedError("fit: the default configuration is not there")
    for configuration in found.configurations.values():
        for name in (one for names in configuration.uses.values() for one in names):
            if name not in found.images:
                raise MalformedError(f"fit: {configuration.name} uses no image {name}")
    return found


def _image(tree: Fdt, node: Node, length: int) -> FitImage:
    hashes = {
        name: _text(tree, child, "algo")
        for name, child in node.children.items()
        if name.startswith("hash")
    }
    return FitImage(
        name=node.name,
        kind=_text(tree, node, "type"),
        compression=_text(tree, node, "compression", "none"),
        data=_data(tree, node, length),
        hashes=hashes,
    )


def _data(tree: Fdt, node: Node, length: int) -> Value:
    """Inside the tree, behind it, or at a place of the file; exactly one of them."""
    named = [
        name
        for name in ("data", "data-offset", "data-position")
        if name in node.properties
    ]
    if len(named) != 1:
        raise MalformedError(f"fit: image {node.name} has no data, or twice")
    if named == ["data"]:
        return node.properties["data"]
    start = _number(tree, node, named[0])
    size = _number(tree, node, "data-size")
    if named == ["data-offset"]:
        start += _aligned(tree.size)
    if not tree.size <= start <= start + size <= length:
        raise MalformedError(f"fit: image {node.name} lies outside the file")
    return Value(start, size)


def _configuration(tree: Fdt, node: Node) -> FitConfiguration:
    signatures = [
        _signature(tree, child)
        for name, child in node.children.items()
        if name.startswith("signature")
    ]
    return FitConfiguration(
        name=node.name,
        uses={
            kind: tree.texts(node.properties[kind])
            for kind in USES
            if kind in node.properties
        },
        signatures=tuple(signatures),
    )


def _signature(tree: Fdt, node: Node) -> FitSignature:
    return FitSignature(
        algorithm=_text(tree, node, "algo"),
        key=_text(tree, node, "key-name-hint", ""),
        images=_texts(tree, node, "sign-images"),
        nodes=_texts(tree, node, "hashed-nodes"),
        signed="value" in node.properties,
    )


def _child(node: Node, name: str) -> Node:
    found = node.children.get(name)
    if found is None:
        raise MalformedError(f"fit: no node /{name}")
    return found


def _text(tree: Fdt, node: Node, name: str, default: str | None = None) -> str:
    found = node.properties.get(name)
    if found is None and default is not None:
        return default
    if found is None:
        raise MalformedError(f"fit: {node.name} says no {name}")
    return tree.text(found, NAME_MAX)


def _texts(tree: Fdt, node: Node, name: str) -> tuple[str, ...]:
    found = node.properties.get(name)
    return () if found is None else tree.texts(found)


def _number(tree: Fdt, node: Node, name: str) -> int:
    found = node.properties.get(name)
    if found is None or found.length != 4:
        raise MalformedError(f"fit: {node.name} says no {name}")
    return int.from_bytes(tree.value(found), "big")


# ── reading ──────────────────────────────────────────────────────────────────────────
class _Window:
    """The tokens, read a few kilobytes at a time."""

    def __init__(self, read: ReadAt, end: int) -> None:
        self._read = read
        self._end = end
        self._start = 0
        self._bytes = b""

    def number(self, at: int) -> int:
        return int.from_bytes(self._take(at, 4), "big")

    def text(self, at: int) -> bytes:
        """The node's name at ``at``, without its NUL."""
        found = self._take(at, min(NAME_MAX, max(self._end - at, 1)))
        name, nul, _ = found.partition(b"\0")
        if not nul:
            raise MalformedError("fdt: a node's name without an end")
        return _ascii(name)

    def _take(self, at: int, length: int) -> bytes:
        if at + length > self._end:
            raise MalformedError("fdt: the tree has no end")
        if not self._start <= at <= at + length <= self._start + len(self._bytes):
            size = min(max(_WINDOW, length), self._end - at)
            self._start, self._bytes = at, _exactly(self._read, at, size)
        return self._bytes[at - self._start :][:length]


def _aligned(length: int) -> int:
    return -(-length // 4) * 4


def _ascii(raw: bytes) -> bytes:
    if not raw.isascii() or not raw.decode("ascii").isprintable():
        raise MalformedError("fdt: a name that is no text")
    return raw


def _exactly(read: ReadAt, offset: int, length: int) -> bytes:
    found = read(offset, length)
    if len(found) != length:
        raise MalformedError("fdt: the file ends too early")
    return found
