"""``secure-boot enrol``: the keys UEFI firmware believes, as it takes them.

For a machine of QEMU and for factories that write the firmware's flash: a variable
store. For a board in Setup Mode: ``PK.auth``, ``KEK.auth``, ``db.auth`` and
``dbx.auth``, which carry no signature and are taken in that mode only; PK goes last,
for with it the mode ends. Keys of an enrolled board change by signed updates, which are
not made here.

The times in both come from the certificates: same input, same files (device-D37).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from sealift.core.errors import RefusedError
from sealift.repo.files import (
    digest_of,
    make_directory,
    read_bounded,
    write_atomic,
)
from sealift.sign.secure_boot.keys import fingerprint, read_certificate

if TYPE_CHECKING:
    from sealift.sign.secure_boot.tools import Tools

__all__ = ["OWNER", "TEMPLATE", "WARNING", "Enrolled", "enrol"]

OWNER: Final = "3d1e2b6a-6a7c-5b0e-9a55-5ea11f7b0075"
"""Who owns the entries, as firmware shows it; it decides nothing."""
TEMPLATE: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""An empty variable store; Debian's package ovmf has it."""
WARNING: Final = (
    "no Microsoft certificate is among these keys: firmware will run no option ROM "
    "signed with one, so network, storage or graphics cards may be missing before the "
    "system starts. Try it on every board before the keys of a batch are enrolled."
)
FILES: Final = ("PK.auth", "KEK.auth", "db.auth", "dbx.auth")
_STORE_MAX: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What was written: digests by file, and the certificates' fingerprints by role."""

    files: dict[str, bytes]
    certificates: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        return {
            "files": {name: digest.hex() for name, digest in self.files.items()},
            "certificates": self.certificates,
            "warning": WARNING,
        }


def enrol(
    certificates: dict[str, Path],
    tools: Tools,
    *,
    store: Path | None = None,
    auth: Path | None = None,
    template: Path = TEMPLATE,
) -> Enrolled:
    """Write the variable store, the ``.auth`` files, or both, for ``PK KEK db``.

    Raises:
        MissingToolError, InvalidConfigError, SpaceError: a tool is missing or failed, a
        file cannot be read or written. RefusedError: a certificate is not in what came
        out, or Secure Boot is not on.
    """
    found = {name: read_certificate(path) for name, path in certificates.items()}
    with TemporaryDirectory(prefix="sealift-") as draft:
        scratch = Path(draft)
        made, written = scratch / "store", scratch / "auth"
        tools.run(
            "virt-fw-vars",
            *("--input", tools.file(template)),
            *("--output", made),
            *("--set-pk", OWNER, certificates["PK"]),  # who may change KEK
            *("--add-kek", OWNER, certificates["KEK"]),  # who may change db and dbx
            *("--add-db", OWNER, certificates["db"]),  # who signs what starts
            "--secure-boot",
            *("--output-auth", written),
        )
        for name, certificate in found.items():
            der = certificate.public_bytes(Encoding.DER)
            for path in (made, written / f"{name}.auth"):
                if der not in read_bounded(path, _STORE_MAX):
                    raise RefusedError(f"{path.name} lacks the certificate of {name}")
        _verify(made, tools)
        wanted = {} if store is None else {store: made}
        if auth is not None:
            make_directory(auth, mode=0o755)
            wanted |= {auth / name: written / name for name in FILES}
        for target, source in wanted.items():
            write_atomic(target, read_bounded(source, _STORE_MAX), mode=0o644)
    return Enrolled(
        {str(path): digest_of(path) for path in wanted},
        {name: fingerprint(certificate) for name, certificate in found.items()},
    )


def _verify(made: Path, tools: Tools) -> None:
    """The store as the tool reads it back: Secure Boot on, and every variable there.

    Raises:
        RefusedError: not so.
    """
    said = tools.run("virt-fw-vars", "--input", made, "--print", "--verbose")
    variables = {
        block.split()[0].removeprefix("name="): block
        for block in said.split("\n\n")
        if block.strip().startswith("name=")
    }
    if "bool: ON" not in variables.get("SecureBootEnable", "") or not (
        {"PK", "KEK", "db", "dbx"} <= set(variables)
    ):
        raise RefusedError("Secure Boot would not be on with this variable store")
