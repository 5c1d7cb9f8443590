"""What rows C-11 and A-25 ask of boot files: whose root they admit, what is unsigned.

Every image here is listed, ordered and signed as any other: by a desk that was fooled,
or by keys that were stolen. What must not be is that a device starts a boot file whose
root is another, or lets what no signature covers decide.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

from sealift.core.pe import read_pe
from sealift.core.types import Bootable, BootKind
from sealift.sim.boot_files import fit_file, fit_tree, joined, tree_file, uki_file
from sealift.sim.boot_files import line_for as admitting
from sealift.sim.vendor import make_release

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.sim.attacks.world import Plan, Scene

__all__ = ["MISMATCHED", "UNSIGNED"]

SALT = bytes(range(32))
Image = tuple[bytes, Bootable]


def _data(name: str) -> bytes:
    return hashlib.shake_256(name.encode()).digest(5 * 4096)


MINE, OTHERS = _data("this release"), _data("another release")
LINE, STRANGE = admitting(MINE, SALT), admitting(OTHERS, SALT)


def _told(make: Callable[[], Image]) -> Plan:
    """A release with that image, ordered; and what came of it."""

    def act(scene: Scene) -> str:
        content, facts = make()
        made = make_release("1.3", 4, content=content, bootable=facts)
        scene.vendor.release(made)
        scene.order(scene.order_for(made))
        outcome = scene.attempt()
        scene.publish("1.4", 5)
        scene.waiting = True
        return outcome

    return act


# ── C-11: what is verified is what is used ───────────────────────────────────────────
def _strange_boot_file() -> Image:
    return joined(MINE, SALT, uki_file(STRANGE))


def _strange_root() -> Image:
    """Boot file and metadata agree; the root beside them is another's."""
    content, _ = joined(OTHERS, SALT, uki_file(LINE))
    _, wanted = joined(MINE, SALT, uki_file(LINE))
    return content, wanted


def _said_twice() -> Image:
    return joined(MINE, SALT, uki_file(f"{LINE} {STRANGE}"))


def _second_section() -> Image:
    """Two command lines in one file: this reader takes one, that reader the other."""
    boot = bytearray(uki_file(LINE))
    at = boot.index(b".linux")
    boot[at : at + 8] = b".cmdline"
    return joined(MINE, SALT, bytes(boot))


def _second_configuration() -> Image:
    return joined(MINE, SALT, fit_file(LINE, STRANGE), BootKind.FIT)


def _swapped_images() -> Image:
    """Two signed configurations, the device tree of one named by the other."""
    tree: Any = fit_tree(LINE, STRANGE)
    tree["configurations"]["conf-1"]["fdt"] = "fdt-2"
    return joined(MINE, SALT, tree_file(tree), BootKind.FIT)


def _chosen_twice() -> Image:
    """A node in front that a loader finds when it looks for ``/chosen``."""
    tree: Any = fit_tree(LINE)
    twice = {"chosen@0": {"bootargs": STRANGE}, "chosen": {"bootargs": LINE}}
    tree["images"]["fdt-1"]["data"] = tree_file(twice)
    return joined(MINE, SALT, tree_file(tree), BootKind.FIT)


def _uncovered() -> Image:
    """The signature itself says that it does not cover the device tree."""
    tree: Any = fit_tree(LINE)
    tree["configurations"]["conf-1"]["signature"]["hashed-nodes"] = ["/"]
    return joined(MINE, SALT, tree_file(tree), BootKind.FIT)


MISMATCHED = tuple(
    _told(make)
    for make in (
        _strange_boot_file, _strange_root, _said_twice, _second_section,
        _second_configuration, _swapped_images, _chosen_twice, _uncovered,
    )
)  # fmt: skip
"""Releases whose boot file, root and metadata are not of one release."""


# ── A-25: what no signature covers has no effect ─────────────────────────────────────
def _other_checksum() -> Image:
    """The holes of a PE file's sum: its checksum, and the certificate table."""
    boot = bytearray(uki_file(LINE))
    boot += bytes(-len(boot) % 8)
    found = read_pe(lambda at, size: bytes(boot[at : at + size]), len(boot))
    struct.pack_into("<I", boot, found.checksum, 0xFFFFFFFF)
    struct.pack_into("<II", boot, found.table_entry, len(boot), 16 + len(STRANGE))
    blob = struct.pack("<IHH", 16 + len(STRANGE), 0x200, 2) + STRANGE.encode()
    boot += blob.ljust(16 + len(STRANGE), b"\0")
    return joined(MINE, SALT, bytes(boot))


def _other_words() -> Image:
    """Members of a FIT image beside what its signature covers."""
    tree: Any = fit_tree(LINE)
    tree |= {"bootargs": STRANGE, "chosen": {"bootargs": STRANGE}}
    signature = tree["configurations"]["conf-1"]["signature"]
    signature |= {"bootargs": STRANGE, "signed-properties": "none", "required": "no"}
    return joined(MINE, SALT, tree_file(tree), BootKind.FIT)


UNSIGNED = tuple(_told(make) for make in (_other_checksum, _other_words))
"""Releases that would be others, if what is unsigned counted."""
