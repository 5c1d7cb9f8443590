"""Who takes part in the demo: a vendor's desk and a server. Each acts by programs.

Everything here runs ``sealift`` as a user would, with the files a user would have. The
device is in ``bench``, the plot in ``demo``, the villain in ``mischief``.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealift.core.container import MAGIC
from sealift.core.errors import OutcomeError
from sealift.sim.images import COMPONENT, HARDWARE_ID, PRODUCT, Image
from sealift.sim.processes import Processes, free_ports, program, stop, wait_for

__all__ = ["Desk", "Packed", "Server", "require", "secret_file", "send", "shown"]


def require(held: object, observed: str) -> None:
    """Go on if ``held``.

    Raises:
        OutcomeError: something else was observed.
    """
    if not held:
        raise OutcomeError(observed)


def shown(count: int) -> str:
    """Bytes in words."""
    return f"{count} B" if count < 10_000 else f"{count / (1 << 20):.2f} MiB"


def secret_file(path: Path, secret: str | None = None) -> Path:
    """A file with a secret, a fresh one unless told, for its owner only."""
    path.touch(mode=0o600)
    path.write_text((secret or secrets.token_urlsafe(24)) + "\n", "ascii")
    return path


_NO_DELTAS, _DELTAS = "enabled = false", "enabled = true"


class Server:
    """``sealift server`` in a directory of its own, on free ports.

    ``listens`` is the address it listens on for devices, operators come by loopback;
    ``more_names`` are further names and addresses that its certificate holds for.
    """

    def __init__(
        self,
        run: Processes,
        directory: Path,
        name: str,
        *,
        listens: str = "127.0.0.1",
        more_names: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.device_port, self.operator_port, self.enrol_port = free_ports(3)
        self._listens_on = {
            "device": listens,
            "operator": "127.0.0.1",
            "enrol": listens,
        }
        self._more_names = more_names
        self._run = run
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def online_keys(self) -> Path:
        """The public halves of its keys, as it hands them out."""
        return self.directory / "public/online-keys.json"

    @property
    def content_key(self) -> Path:
        """The public half of the key that content keys are wrapped to."""
        return self.directory / "public/content-key.json"

    @property
    def access(self) -> tuple[str | Path, ...]:
        """The options by which an operator reaches it."""
        url = f"https://localhost:{self.operator_port}"
        token = ("--token-file", self.token)
        return ("--server", url, *token, "--ca", self._authority)

    @property
    def token(self) -> Path:
        """The file with the operator's token."""
        return self.directory.with_suffix(".token")

    def blob(self, sha256: str) -> Path:
        """Where it keeps the container of that digest."""
        return self.directory / "blobs" / sha256

    def init(self, *, deltas: bool = False) -> None:
        """Make its directory, with fresh secrets, and have it polled often.

        It makes ``deltas`` only if told to: they take CPU that others here need.
        """
        names = ("localhost", "127.0.0.1", *self._more_names)
        named = [word for name in names for word in ("--host-name", name)]
        more = (*named, *self._listen, "--json")
        made = self._sealift("init", self.directory, *more).json()
        secret_file(self.token, made["operator_token"])
        text = self._settings.read_text("utf-8")
        text = text.replace("poll_seconds = 300", "poll_seconds = 1")
        words = f"[delta]\n{_DELTAS if deltas else _NO_DELTAS}\n"
        self._settings.write_text(text + words)

    def make_deltas(self) -> None:
        """Start anew, and make deltas from now on."""
        text = self._settings.read_text("utf-8")
        self._settings.write_text(text.replace(_NO_DELTAS, _DELTAS))
        self.stop()
        self.start()

    def start(self) -> None:
        """Run it, and wait until it listens."""
        self._process = self._run.start(
            self._name,
            program("sealift"),
            "server",
            "run",
            self.directory,
            *self._listen,
        )
        wait_for(self._listens, f"{self._name} listening")

    def require_guarded(self) -> None:
        """Nobody gets in unknown, and the token is not among what it keeps.

        Raises:
            OutcomeError: somebody would.
        """
        stranger = secret_file(self.directory.with_suffix(".wrong-token"))
        words = ("deployment", "list", *self.access, "--token-file", stranger, "--json")
        refused = self._run.run(program("sealift"), *words, status=6).json()
        code = refused["error"]["code"]
        require(code == "auth.required", f"a wrong token is answered by {code}")
        context = ssl.create_default_context(cafile=str(self._authority))
        try:
            with (
                socket.create_connection(("127.0.0.1", self.device_port), 10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as stream,
            ):
                stream.sendall(
                    b"GET /director/metadata/timestamp.json HTTP/1.0\r\n\r\n"
                )
                answered = stream.recv(1)
        except OSError:  # ssl.SSLError is one
            answered = b""
        require(not answered, "a device without a certificate got an answer")
        token = self.token.read_bytes().strip()
        for path in self.directory.rglob("*"):
            kept = path.is_file() and token in path.read_bytes()
            require(not kept, f"{path.name} holds the operator token")

    def installations(self, deployment: str) -> list[str]:
        """The states of a deployment's installations, as an operator sees them."""
        return [one["state"] for one in self.deployed(deployment)]

    def deployed(self, deployment: str) -> list[dict[str, Any]]:
        """A deployment's installations."""
        words = ("deployment", "show", deployment, *self.access, "--json")
        found = self._run.run(program("sealift"), *words).json()
        return list(found["installations"])

    def deltas(self) -> list[dict[str, Any]]:
        """Every delta it wants or has, as an operator sees them."""
        words = ("payload", "deltas", *self.access, "--json")
        return list(self._run.run(program("sealift"), *words).json())

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def readable(self) -> int:
        """How many of its blobs are plain payload containers."""
        blobs = [
            path for path in (self.directory / "blobs").iterdir() if path.is_file()
        ]
        begins = [path.open("rb").read(len(MAGIC)) for path in blobs]
        return begins.count(MAGIC)

    @property
    def _settings(self) -> Path:
        return self.directory / "server.toml"

    @property
    def _authority(self) -> Path:
        return self.directory / "public/tls-ca.pem"

    @property
    def _listen(self) -> tuple[str, ...]:
        pairs = (
            (f"--{name}-listen", f"{self._listens_on[name]}:{at}")
            for name, at in self._ports.items()
        )
        return tuple(word for pair in pairs for word in pair)

    @property
    def _ports(self) -> dict[str, int]:
        return {
            "device": self.device_port,
            "operator": self.operator_port,
            "enrol": self.enrol_port,
        }

    def _listens(self) -> bool:
        require(
            self._process is not None and self._process.poll() is None,
            f"{self._name} ended at once; see {self._run.log(self._name)}",
        )
        for name, port in self._ports.items():
            with socket.socket() as probe:
                if probe.connect_ex((self._listens_on[name], port)):
                    return False
        return True

    def _sealift(self, *words: str | Path) -> Any:
        return self._run.run(program("sealift"), "server", *words)


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed release: its directory, its id on a server, its container."""

    directory: Path
    id: str
    length: int
    sha256: str


class Desk:
    """A vendor's desk with offline keys, in the hands of several people."""

    def __init__(self, run: Processes, directory: Path) -> None:
        self.directory = directory
        self._run = run
        self._passphrase = directory.with_suffix(".passphrase")

    def init(self, online_keys: Path) -> dict[str, Any]:
        """The key ceremony: two of three, every file encrypted."""
        secret_file(self._passphrase)
        made: dict[str, Any] = self._sealift(
            "init", self.directory, "--online", online_keys, *self._unlock, "--json"
        )
        return made

    def publish_keys(self, server: Server) -> None:
        """Take both roots and the first targets to a server."""
        self._sealift("keys", "publish", self.directory, *server.access, "--json")

    def require_encrypted(self) -> None:
        """No key file can be used without the passphrase, or read by others."""
        for file in self.directory.glob("keys/*.pem"):
            closed = file.stat().st_mode & 0o077 == 0
            require(
                closed and b"ENCRYPTED PRIVATE KEY" in file.read_bytes(),
                f"{file.name} is not an encrypted key file for its owner only",
            )

    def pack(self, image: Image, counter: int, *more: str | Path) -> Packed:
        """Make containers, facts and signing request of a release."""
        release = self.directory.with_name(f"{self.directory.name}-{image.version}")
        described = {
            "--product": PRODUCT,
            "--component": COMPONENT,
            "--version": image.version,
            "--hardware-id": HARDWARE_ID,
            "--counter": str(counter),
            "--out": str(release),
            "--preset": "1",  # a quarter of the time, 7 % more bytes
        }
        words = [word for option in described.items() for word in option]
        made = self._sealift(
            "release", "pack", image.path, *self._own, *words, *more, "--json"
        )
        container = made["container"]
        return Packed(
            release,
            f"{PRODUCT}-{image.version}",
            container["length"],
            container["sha256"],
        )

    def sign(self, packed: Packed) -> list[str]:
        """Two people sign, each on a machine of their own; what they were told.

        The second one gets the request as a file, and gives a signature back as a file.
        """
        release = packed.directory
        told = self._sealift("release", "review", release, *self._own, "--json")
        self._sign(release, "image-targets-1")
        elsewhere = release.with_name(f"{release.name}-bob.json")
        shutil.copy(release / "request.json", elsewhere)
        self._sign(elsewhere, "image-targets-2", "--detached", _signature(release))
        return [finding["text"] for finding in told["findings"]]

    def publish(self, packed: Packed, server: Server) -> None:
        """Take a signed release to a server."""
        added = ("--add", _signature(packed.directory))
        words = (packed.directory, *self._own, *added, *server.access)
        made = self._sealift("release", "publish", *words, "--json")
        require(made["release"] == packed.id, f"published as {made['release']}")

    @property
    def _own(self) -> tuple[str | Path, ...]:
        return ("--desk", self.directory)

    @property
    def _unlock(self) -> tuple[str | Path, ...]:
        return ("--passphrase-file", self._passphrase)

    def _sign(self, request: Path, key: str, *more: str | Path) -> None:
        pem = self.directory / f"keys/{key}.pem"
        words = ("--key", pem, *self._unlock, *more, "--yes", "--json")
        self._sealift("release", "sign", request, *words)

    def _sealift(self, *words: str | Path) -> Any:
        return self._run.run(program("sealift"), *words).json()


def _signature(release: Path) -> Path:
    return release.with_name(f"{release.name}-bob-signature.json")


def send(run: Processes, server: Server, release_id: str, device: str) -> str:
    """Send a release to a device; the id of the deployment."""
    words: Sequence[str] = ("--release", release_id, "--device", device)
    made = run.run(
        program("sealift"), "deployment", "create", *words, *server.access, "--json"
    )
    return str(made.json()["deployment"]["id"])
