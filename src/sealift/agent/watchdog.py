"""Watchdogs, and the one rule by which they are fed.

They are fed while the agent shows life: the parent by itself while it waits or polls, a
child by what it says through a pipe (``agent.life``). Who is silent for longer than it
said is not fed for. And a trial is fed for until its deadline, a grace on top, and not
a second longer, whatever shows life: a hang ends as a failed start (D-06).

Two kinds are known: the service manager's, and a device such as ``/dev/watchdog`` on a
board without one. The device resets the machine unless it is fed, also when the agent
is gone. It is called off only at an orderly stop, and never during a trial or while the
machine is about to restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Protocol

from sealift.agent import log
from sealift.agent.life import SILENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRACE_SECONDS = 60.0
"""What the agent has to end a trial in good order once its deadline has passed."""

SET_TIMEOUT = 0xC0045706
"""``WDIOC_SETTIMEOUT``: an int of seconds in, the one that holds out."""

_FEEDINGS = 4  # per time-out
_LONGEST = 86_400.0


class Dog(Protocol):
    """One watchdog."""

    every: float
    """Seconds between two feedings."""

    def feed(self) -> None:
        """Feed it; what hinders is logged, never raised."""
        ...

    def release(self) -> None:
        """Call it off, as far as that is possible."""
        ...


class Guard:
    """Feeds ``dogs`` by the rule; a :class:`~sealift.agent.life.Listener`."""

    def __init__(self, dogs: Sequence[Dog], now: Callable[[], float]) -> None:
        self._dogs = tuple(dogs)
        self._now = now
        self._silent_at = now() + SILENCE_SECONDS
        self._trial_ends: float | None = None
        self._restarts = False
        self._due = float("-inf")
        self._starving = ""

    # ── what it is told ──────────────────────────────────────────────────────────────
    def lives(self, seconds: float) -> float | None:
        """Somebody gets on; feeds if that is due. Seconds until the next feeding."""
        self._silent_at = self._now() + min(seconds, _LONGEST)
        return self.tend()

    def trial(self, seconds: float) -> None:
        """A trial with so many seconds left."""
        self._trial_ends = self._now() + min(seconds, _LONGEST) + GRACE_SECONDS

    def settled(self) -> None:
        """No trial, or no longer one."""
        self._trial_ends = None

    def restarts(self) -> None:
        """Never call a dog off: a shutdown can hang, too."""
        self._restarts = True

    # ── what it does ─────────────────────────────────────────────────────────────────
    def tend(self) -> float | None:
        """Feed if it is due and allowed; seconds until the next time, if ever."""
        if not self._dogs:
            return None
        now = self._now()
        if now >= self._due:
            self._due = now + min(dog.every for dog in self._dogs)
            if self._may_feed(now):
                for dog in self._dogs:
                    dog.feed()
        return self._due - now

    @property
    def overdue(self) -> float:
        """Seconds since somebody should have said something; below 0: not yet."""
        return self._now() - self._silent_at

    def end(self) -> None:
        """An orderly stop: call the dogs off, unless they are needed from here on."""
        if self._trial_ends is None and not self._restarts:
            for dog in self._dogs:
                dog.release()

    def _may_feed(self, now: float) -> bool:
        starving = ""
        if now >= self._silent_at:
            starving = "nothing shows life"
        elif self._trial_ends is not None and now >= self._trial_ends:
            starving = "the trial's deadline passed"
        if starving and starving != self._starving:
            log.write("error", "watchdog", message=f"not fed any more: {starving}")
        self._starving = starving
        return not starving


class ManagerDog:
    """The watchdog of a service manager that wants a word within ``seconds``."""

    def __init__(self, seconds: float, tell: Callable[[str], None]) -> None:
        self.every = seconds / _FEEDINGS
        self._tell = tell

    def feed(self) -> None:
        """One word."""
        self._tell("WATCHDOG=1")

    def release(self) -> None:
        """It knows by itself that a service stops."""


class DeviceDog:
    """The kernel's watchdog: a device that is written to, or the machine is reset.

    It is opened at the first feeding, which takes it over from the kernel, which had it
    from the loader. One that cannot be opened is logged once and tried at each feeding:
    no reason for a device to go without updates.
    """

    def __init__(self, path: str, seconds: int) -> None:
        self.every = seconds / _FEEDINGS
        self._path = path
        self._seconds = seconds
        self._fd = -1
        self._failed = False

    def feed(self) -> None:
        """Open it if that was not done yet, and feed it."""
        try:
            if self._fd < 0:
                self._open()
            os.write(self._fd, b"\0")
        except OSError as error:
            self._fail(error)

    def release(self) -> None:
        """The magic letter, and close; a kernel built for "no way out" goes on."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, b"V")
            self._close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(self._path, flags)
        held = self._set_timeout()
        self.every = min(self.every, max(held, 1) / _FEEDINGS)
        log.info("watchdog", device=self._path, seconds=held)
        self._failed = False

    def _set_timeout(self) -> int:
        """The seconds that hold; a driver may know only its own, and not tell."""
        try:
            found = fcntl.ioctl(self._fd, SET_TIMEOUT, struct.pack("i", self._seconds))
        except OSError:
            return self._seconds
        return int(struct.unpack("i", found)[0])

    def _fail(self, error: OSError) -> None:
        self._close()
        if not self._failed:
            message = f"{self._path} cannot be fed: {error.strerror}"
            log.write("error", "watchdog", message=message)
        self._failed = True

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
