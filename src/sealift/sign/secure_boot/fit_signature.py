"""The signature of a FIT configuration, verified as U-Boot verifies it.

What is signed is not a run of bytes but a choice of tokens: of each node in
``hashed-nodes`` its begin, its properties without the images' data, and its end; of
nodes right below it begin and end; then the end of the tree, and so much of the names
of properties as ``hashed-strings`` says (U-Boot, ``doc/usage/fit/signature.rst``). The
images are covered by the digests in their hash nodes.

``mkimage`` signs, and no tool of Debian verifies; so this is the other tool.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from sealift.core.errors import RefusedError
from sealift.core.fdt import Begin, Fdt, Node, Property, Value, read_fit, small_tree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from sealift.core.fdt import ReadAt

__all__ = ["require_signed"]

ALGORITHM: Final = "sha256,rsa2048"
_DATA: Final = frozenset({"data", "data-size", "data-position", "data-offset"})
_FINISH: Final = struct.pack(">I", 9)
_VALUE_MAX: Final = 1 << 16
_PIECE: Final = 1 << 20


def require_signed(read: ReadAt, length: int, public: RSAPublicKey) -> None:
    """Every configuration is signed by this key, and its images have their digests.

    Images whose data lies outside the tree are not taken here.

    Raises:
        RefusedError: not so. FormatError: no FIT.
    """
    read_fit(read, length)
    tree = Fdt(read, length)
    root = small_tree(tree)
    configurations = root.children["configurations"].children
    for name, node in configurations.items():
        signatures = [
            child for one, child in node.children.items() if one.startswith("signature")
        ]
        if not any(_signed_by(tree, one, public) for one in signatures):
            raise RefusedError(f"configuration {name} is not signed by that key")
    for name, image in root.children["images"].children.items():
        _require_digests(tree, read, name, image)


def _signed_by(tree: Fdt, signature: Node, public: RSAPublicKey) -> bool:
    if tree.text(_member(signature, "algo")) != ALGORITHM:
        raise RefusedError(f"a signature that is not {ALGORITHM}")
    nodes = frozenset(tree.texts(_member(signature, "hashed-nodes"), _VALUE_MAX))
    strings = int.from_bytes(tree.value(_member(signature, "hashed-strings"))[4:8])
    try:
        public.verify(
            tree.value(_member(signature, "value"), _VALUE_MAX),
            _signed_bytes(tree, nodes, strings),
            PKCS1v15(),
            SHA256(),
        )
    except InvalidSignature:
        return False
    return True


def _member(node: Node, name: str) -> Value:
    if name not in node.properties:
        raise RefusedError(f"a {node.name} node without {name}: it is not signed")
    return node.properties[name]


def _signed_bytes(tree: Fdt, nodes: frozenset[str], strings: int) -> bytes:
    """The tokens that are covered, one behind the other."""
    out = bytearray()
    path: list[str] = []
    depths = [0]  # 2 in a node that is covered, 1 right below one, 0 elsewhere
    for event in tree.events():
        if isinstance(event, Begin):
            path.append(event.name)
            below = max(0, depths[-1] - 1)
            depths.append(2 if ("/".join(path) or "/") in nodes else below)
            if depths[-1]:
                name = Value(event.at, 4 + _aligned(len(event.name) + 1))
                out += tree.value(name)
        elif isinstance(event, Property):
            if depths[-1] == 2 and event.name not in _DATA:
                head = event.value.offset - event.at
                token = Value(event.at, head + _aligned(event.value.length))
                out += tree.value(token, _VALUE_MAX)
        else:
            if depths.pop():
                out += tree.value(Value(event.at, 4))
            path.pop()
    names = Value(tree.strings.offset, min(strings, tree.strings.length))
    return bytes(out) + _FINISH + tree.value(names, _VALUE_MAX)


def _require_digests(tree: Fdt, read: ReadAt, name: str, image: Node) -> None:
    data = image.properties.get("data")
    hashes = [node for one, node in image.children.items() if one.startswith("hash")]
    if data is None or not hashes:
        raise RefusedError(f"image {name} has no data in the tree, or no hash")
    digest = hashlib.sha256()
    end = data.offset + data.length
    for at in range(data.offset, end, _PIECE):
        digest.update(read(at, min(_PIECE, end - at)))
    for node in hashes:
        algorithm = tree.text(_member(node, "algo"))
        if algorithm != "sha256" or (
            tree.value(_member(node, "value")) != digest.digest()
        ):
            raise RefusedError(
                f"image {name} has another {algorithm} than its node says"
            )


def _aligned(length: int) -> int:
    return -(-length // 4) * 4
