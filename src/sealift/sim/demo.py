"""The demo: one vendor, one server, one board, and somebody who means ill.

Every step says beforehand what must come of it and fails if anything else does. The
steps are in ``plot``; here they are run in order, timed, and cleaned up after.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from sealift.core.errors import BusyError, InvalidConfigError, SealiftError
from sealift.sim.images import PROFILES, Profile
from sealift.sim.plot import STEPS, Step
from sealift.sim.processes import Processes
from sealift.sim.relay import Relay
from sealift.sim.scene import Scene, Watch

__all__ = ["STEPS", "Done", "Options", "Step", "Watch", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Where the demo works, with which images, and what stays afterwards."""

    work: Path
    profile: Profile
    keep: bool

    @classmethod
    def checked(cls, work: Path, image_size: str, *, keep: bool) -> Options:
        """The options, or why they cannot be.

        Raises:
            InvalidConfigError: an unknown size.
        """
        if image_size not in PROFILES:
            raise InvalidConfigError(
                f"there are no images of size {image_size!r}",
                hint=f"--image-size takes {' or '.join(PROFILES)}",
            )
        return cls(work.absolute(), PROFILES[image_size], keep)

    @property
    def run(self) -> Path:
        """Keys, server, device and logs of one run."""
        return self.work / "run"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a step."""

    step: str
    required: str
    observed: str
    ok: bool
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The step as ``sealift demo --json`` prints it."""
        return {
            "step": self.step,
            "ok": self.ok,
            "detail": f"required: {self.required}; observed: {self.observed}",
            "seconds": round(self.seconds, 2),
        }


def run(options: Options, watch: Watch) -> Generator[Done, None, None]:
    """Play the steps in order; the first that fails is the last.

    Yields what came of each. Nothing is left behind but ``options.work``, and of a run
    that held nothing but packages and images, unless ``keep``.

    Raises:
        BusyError: another demo works in the same directory.
    """
    with _alone(options.work):
        shutil.rmtree(options.run, ignore_errors=True)
        options.run.mkdir(mode=0o700)
        held = False
        with Relay() as relay, Processes(options.run / "logs") as processes:
            scene = Scene.set_up(
                options.work, options.run, options.profile, processes, relay, watch
            )
            for step in STEPS:
                watch.say(f"...  {step.name}: {step.required}")
                done = _play(step, scene)
                yield done
                if not done.ok:
                    return
            held = True
        if held and not options.keep:
            shutil.rmtree(options.run)


def _play(step: Step, scene: Scene) -> Done:
    began = time.monotonic()
    try:
        observed, ok = step.act(scene), True
    except SealiftError as error:
        observed, ok = f"{error.message} [{error.code}]", False
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        observed, ok = f"{place}{error.strerror or error}", False
    return Done(step.name, step.required, observed, ok, time.monotonic() - began)


@contextlib.contextmanager
def _alone(work: Path) -> Generator[None, None, None]:
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise InvalidConfigError(
            f"{work} cannot be written: {error.strerror}", hint="--work names another"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another demo works in {work}", hint="--work names another directory"
            ) from error
        yield
