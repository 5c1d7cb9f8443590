"""The pairs of images that `benchmarks.delta` measures, made once below a directory.

The public pairs are described in words in the payload design: a kernel and a boot
loader of Debian in two versions, and a root file system with and without a year of
fixes. Packages come through `sealift.sim.debian`, that is from the mirror which the
machine's own sources name, with signatures checked; no script of theirs runs. What
suites hold changes with time, so a result carries the digest of every file.

The project's own pairs: the demo's image in two versions, small firmware of Debian, and
one that is generated here (`_delta_firmware`) and needs no network.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks._delta_firmware import make_firmware
from benchmarks.common import MIB
from sealift.sim import debian, ext4
from sealift.sim.debian import Apt, Package, Say
from sealift.sim.images import FULL, Builder, plant, settle

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OLD, NEW = "bookworm", "trixie"
ALL_OF_OLD = (OLD, f"{OLD}-updates", f"{OLD}-security")

ROOTFS_SIZE = 400 * MIB
ROOTFS = (
    "?essential",
    "apt",
    "systemd-sysv",
    "dbus",
    "udev",
    "avahi-daemon",
    "bluez",
    "ca-certificates",
    "chrony",
    "cron",
    "curl",
    "iproute2",
    "logrotate",
    "modemmanager",
    "mosquitto",
    "network-manager",
    "nftables",
    "nginx-light",
    "openssh-server",
    "python3",
    "rsyslog",
    "sudo",
    "wpasupplicant",
)
_KERNEL = re.compile(r"linux-image-6\.1\.0-(\d+)-arm64")
_DOCUMENTATION = ("doc", "man", "info", "locale", "lintian")
_LEFT_OUT = ("var/cache", "var/log", "var/lib/apt/lists", "tmp", "boot")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images: one a device runs, and one it shall run."""

    name: str
    old: Path
    new: Path

    def digests(self) -> tuple[str, str]:
        """Lower hex SHA-256 of both."""
        return sha256_hex(self.old), sha256_hex(self.new)


def sha256_hex(path: Path) -> str:
    """Lower hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Corpus:
    """Makes pairs below `work`, and takes what an earlier run made as it is."""

    def __init__(self, work: Path, say: Say = debian.quiet) -> None:
        self._work = work.absolute()
        self._say = say

    def pair(self, name: str) -> Pair:
        """One of :data:`PAIRS`.

        Raises:
            SealiftError: no apt, no network, no such package, or no room.
        """
        place = self._work / "pairs" / name
        pair = Pair(name, place / "old", place / "new")
        if not pair.new.exists():
            self._say(f"making the pair {name}")
            with tempfile.TemporaryDirectory(dir=self._home("making")) as desk:
                PAIRS[name](self, Path(desk))
                shutil.rmtree(place, ignore_errors=True)
                place.parent.mkdir(exist_ok=True)
                shutil.copytree(desk, place)
        return pair

    def _home(self, name: str) -> Path:
        home = self._work / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    # ── packages ─────────────────────────────────────────────────────────────────────
    def apt(self, architecture: str, suites: Sequence[str]) -> Apt:
        """These suites of the machine's own mirror, as if nothing was installed."""
        home = self._home(f"apt/{architecture}-{'-'.join(suites)}")
        nothing, sources = home / "nothing-installed", home / "chosen.sources"
        nothing.write_bytes(b"")
        sources.write_text("\n".join(map(self._source, suites)), "utf-8")
        options = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::Etc::SourceList": str(sources),
            "Dir::Etc::SourceParts": str(home / "none.d"),
        }
        apt = Apt(home, self._say, installed=nothing, options=options)
        if not apt.has_lists():
            apt.update()
        return apt

    def _source(self, suite: str) -> str:
        fields = {
            "Types": "deb",
            "URIs": self._uri("Debian-Security" if "security" in suite else "Debian"),
            "Suites": suite,
            "Components": "main",
        }
        if KEYRING.exists():
            fields["Signed-By"] = str(KEYRING)
        return "".join(f"{key}: {value}\n" for key, value in fields.items())

    def _uri(self, label: str) -> str:
        machine = Apt(self._home("apt/machine"), self._say)
        if not machine.has_lists():
            machine.update()
        return next(one.uri for one in machine.repositories() if one.label == label)

    def debs(self, apt: Apt, packages: Iterable[Package]) -> list[Path]:
        """These packages as files."""
        into = self._home("debs")
        wanted = sorted(packages)
        lacking = [one.spec for one in wanted if one.file_in(into) is None]
        if lacking:
            self._say(f"fetching {len(lacking)} packages")
            apt.download(lacking, into)
        return [found for one in wanted if (found := one.file_in(into))]

    def file_of(
        self,
        architecture: str,
        suites: Sequence[str],
        name: str,
        inside: str,
        out: Path,
    ) -> None:
        """One file out of the newest version of one package."""
        apt = self.apt(architecture, suites)
        (deb,) = self.debs(apt, apt.newest([name]))
        with tempfile.TemporaryDirectory(dir=self._home("making")) as tree:
            debian.unpack(deb, Path(tree))
            (found,) = Path(tree).glob(inside)
            shutil.copyfile(found, out)

    # ── the public pairs ─────────────────────────────────────────────────────────────
    def kernel(self, desk: Path) -> None:
        """The boot image of Debian 12's arm64 kernel: lowest and highest ABI number."""
        names = self.apt("arm64", ALL_OF_OLD).names("linux-image-6.1.0-")
        found = {int(m[1]): name for name in names if (m := _KERNEL.fullmatch(name))}
        for abi, side in ((min(found), "old"), (max(found), "new")):
            out = desk / side
            self.file_of("arm64", ALL_OF_OLD, found[abi], "boot/vmlinuz-*", out)

    def boot_loader(self, desk: Path) -> None:
        """U-Boot for the 64-bit Raspberry Pi of Debian 12 and of Debian 13."""
        inside = "usr/lib/u-boot/rpi_arm64/u-boot.bin"
        self._two_releases("arm64", "u-boot-rpi", inside, desk)

    def _two_releases(
        self, architecture: str, name: str, inside: str, desk: Path
    ) -> None:
        for suite, side in ((OLD, "old"), (NEW, "new")):
            self.file_of(architecture, [suite], name, inside, desk / side)

    def root_file_system(self, desk: Path) -> None:
        """Debian 12 with an init system and services: as released, and with fixes."""
        self._root_file_systems(desk, _LEFT_OUT)

    def lean_file_system(self, desk: Path) -> None:
        """The same as devices ship it: without documentation and translations."""
        shares = (f"usr/share/{name}" for name in _DOCUMENTATION)
        self._root_file_systems(desk, (*_LEFT_OUT, *shares))

    def _root_file_systems(self, desk: Path, left_out: Sequence[str]) -> None:
        programs = ext4.find(self._home("ext4"), self._say)
        for suites, side in (([OLD], "old"), (ALL_OF_OLD, "new")):
            apt = self.apt("amd64", suites)
            tree = desk / "tree"
            plant(self.debs(apt, apt.closure(ROOTFS)), tree)
            for name in left_out:
                shutil.rmtree(tree / name, ignore_errors=True)
                (tree / name).mkdir(parents=True)
            settle(tree)
            programs.make(tree, desk / side, ROOTFS_SIZE)
            shutil.rmtree(tree)

    # ── the project's own ────────────────────────────────────────────────────────────
    def demo(self, desk: Path) -> None:
        """What the demo ships as release 1 and as release 2."""
        programs = ext4.find(self._home("ext4"), self._say)
        builder = Builder(self._home("demo"), FULL, programs, self._say)
        pools = builder.pools()
        shutil.copyfile(builder.build("1.0.0", pools.older).path, desk / "old")
        shutil.copyfile(builder.build("2.0.0", pools.newer).path, desk / "new")

    def radio(self, desk: Path) -> None:
        """The program of a wireless chip's microcontroller, of Debian 12 and 13."""
        inside = "**/ath9k_htc/htc_7010-*.fw"
        self._two_releases("arm64", "firmware-ath9k-htc", inside, desk)

    def bios(self, desk: Path) -> None:
        """A PC's small firmware, of Debian 12 and of Debian 13."""
        self._two_releases("arm64", "seabios", "usr/share/seabios/bios-256k.bin", desk)

    def firmware(self, desk: Path) -> None:
        """A secure monitor for a small board, of Debian 12 and of Debian 13."""
        inside = "usr/lib/arm-trusted-firmware/rk3399/bl31.elf"
        self._two_releases("arm64", "arm-trusted-firmware", inside, desk)

    def generated(self, desk: Path) -> None:
        """A microcontroller's program before and after a small change."""
        for revision, side in ((1, "old"), (2, "new")):
            (desk / side).write_bytes(make_firmware(revision))


PAIRS: dict[str, Callable[[Corpus, Path], None]] = {
    "radio": Corpus.radio,
    "bios": Corpus.bios,
    "generated": Corpus.generated,
    "firmware": Corpus.firmware,
    "u-boot": Corpus.boot_loader,
    "demo": Corpus.demo,
    "kernel": Corpus.kernel,
    "rootfs-lean": Corpus.lean_file_system,
    "rootfs": Corpus.root_file_system,
}
"""Every pair, from the smallest to the largest."""

DEFAULT = [name for name in PAIRS if name != "generated"]
"""All that is real."""

SPARSE_STEP = 64 * MIB
SPARSE_PIECE = MIB // 4


def sparse_pair(place: Path, gib: int) -> Pair:
    """Two images of so many GiB: mostly holes, here and there noise that changes."""
    pair = Pair(f"sparse-{gib}-gib", place / "old", place / "new")
    for path, shift in ((pair.old, 0), (pair.new, 4096)):
        chance = Random("what both images hold")
        with path.open("wb") as file:
            file.truncate(gib << 30)
            for at in range(0, gib << 30, SPARSE_STEP):
                file.seek(at + shift)
                file.write(chance.randbytes(SPARSE_PIECE))
    with pair.new.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    return pair
