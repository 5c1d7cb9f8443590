"""Rows can fail: take one check out of the code, and the row that is about it says so.

Each mutant is one line of the shipped code made worse. A row that held all the same
would prove nothing.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealift.agent.ports import SlotDevice, Transport, Workspace
from sealift.core.errors import ExpiredError
from sealift.core.trust import accept
from sealift.core.types import Instruction
from sealift.sim.attacks.catalogue import Row, row
from sealift.sim.attacks.fence import fenced
from sealift.sim.attacks.run import attacks, run_row
from sealift.sim.attacks.simulated import Parts
from sealift.sim.attacks.world import INSTALLED, Ground, Observed, Scene


def found(attack_id: str) -> Row:
    wanted = row(attack_id)
    assert wanted is not None
    return wanted


def _nothing(*_: object, **__: object) -> None:
    """A check that finds nothing wrong."""


def _any_key(key: Any, *_: object) -> bytes:
    """Whatever it is, the key signed it."""
    return bytes(key.identity)


def _by_key_id(
    _what: str, _data: bytes, signatures: Any, _keys: Any, rule: Any
) -> frozenset[bytes]:
    """A threshold over key ids, as many have it, and no signature is checked."""
    ids = {key_id.encode() for key_id in rule.key_ids if key_id in signatures}
    if len(ids) < rule.threshold:
        raise ExpiredError("too few ids")
    return frozenset(ids)


def _fewer_families(counted: Any, rule: Any) -> bool:
    """A hybrid role without a rule for each family, and half its threshold."""
    return bool(len(counted) * 2 >= rule.threshold)


def _no_reset(state: Any, _root: object) -> Any:
    """A rotation that takes no floor back (R5)."""
    return state


def _must_match(_order: object, image: Any) -> Any:
    """What the Image repository says is enough."""
    return image.custom.must_match


def _covers_all(*_: object) -> bool:
    """A delegation that applies to everything."""
    return True


def _read_anyway(path: str, *_: object, **__: object) -> bytes:
    """A file, whoever may have written it."""
    return Path(path).read_bytes() if Path(path).is_file() else b""


def _kept_unseen(self: Any, want: Any, now: Any) -> None:
    """A file is kept first and verified then."""
    past = self.state.past_timestamp
    raw = want.kept or self._fetch(self.name, want, past.raw if past else None)
    if raw is not None:
        self.changes[want.version if want.role == "root" else want.role] = raw
    self.state = accept(self.state, want, raw, now)


Mutant = tuple[str, str, Callable[..., Any], tuple[str, ...]]
MUTANTS: list[Mutant] = [
    (
        "core.trust",
        "require_signed",
        _nothing,
        ("A-01", "A-02", "B-02", "B-03", "B-04"),
    ),
    ("core.rotation", "require_signed", _nothing, ("A-05",)),
    ("core.keys", "verify", _any_key, ("B-10",)),
    ("core.bootable", "check_line", _nothing, ("C-11",)),
    ("core.bootable", "check_root", _nothing, ("C-11",)),
    ("core.bootable", "_check_covered", _nothing, ("C-11",)),
    ("core.checks", "require_threshold", _by_key_id, ("B-01",)),
    ("core.keys", "_satisfied", _fewer_families, ("B-15",)),
    ("core.trust", "require_version", _nothing, ("A-04", "A-10")),
    ("core.trust", "require_fresh", _nothing, ("A-06", "A-28", "A-30")),
    ("core.trust", "require_ours", _nothing, ("A-11", "A-12")),
    ("core.trust", "require_listed_version", _nothing, ("A-13",)),
    ("core.trust", "after_rotation", _no_reset, ("A-31",)),
    ("core.rotation", "refuse_demo_keys", _nothing, ("B-11",)),
    ("core.uptane", "_require_same", _must_match, ("A-34",)),
    ("core.metadata.Delegation", "covers", _covers_all, ("B-07", "B-08")),
    ("core.metadata.FileInfo", "require", _nothing, ("A-13",)),
    ("agent.transport.https", "check_plain", _nothing, ("A-32",)),
    ("agent.repository.Repository", "_bring", _kept_unseen, ("A-02", "A-29")),
    ("agent.identity", "read_guarded", _read_anyway, ("B-14",)),
    ("agent.watchdog.Guard", "_may_feed", _covers_all, ("D-06",)),
    ("agent.watchdog.Guard", "trial", _nothing, ("D-06",)),
    ("agent.wiring", "_settle", _nothing, ("D-06", "D-07")),
    ("repo.policy", "algorithm_of", _nothing, ("B-12",)),
    ("sim.attacks.ceremony", "require_consent", _nothing, ("B-16",)),
]


def _place(name: str) -> Any:
    """The module, or the class in a module, of that name."""
    module, _, member = f"sealift.{name}".rpartition(".")
    if member[0].isupper():
        return getattr(importlib.import_module(module), member)
    return importlib.import_module(f"{module}.{member}")


CASES = [
    pytest.param(*mutant[:3], attack_id, id=f"{mutant[1]}-{attack_id}")
    for mutant in MUTANTS
    for attack_id in mutant[3]
]


@pytest.mark.parametrize(("place", "name", "worse", "attack_id"), CASES)
def test_a_row_notices_that_its_check_is_gone(
    place: str,
    name: str,
    worse: Callable[..., Any],
    attack_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the check the row does not hold, and not because something crashed."""
    monkeypatch.setattr(_place(place), name, worse)
    result = run_row(found(attack_id), attacks()[attack_id])
    assert result.ok is False
    assert "crash" not in result.observed


def test_two_guards_stand_behind_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the verifier's floor the machine's still refuses; without both, nobody."""
    monkeypatch.setattr("sealift.core.uptane._require_counter", _nothing)
    assert run_row(found("B-05"), attacks()["B-05"]).ok
    monkeypatch.setattr("sealift.agent.duties.above", _nothing)
    assert run_row(found("B-05"), attacks()["B-05"]).ok is False


# ── the framework itself ─────────────────────────────────────────────────────────────
class BlindFill:
    """Writes what comes from the network, without a look at it."""

    def __init__(
        self, order: Instruction, way: Transport, work: Workspace, **_: object
    ) -> None:
        self._order = order

    def __call__(self, into: SlotDevice, base: SlotDevice | None, /) -> None:
        into.write(0, b"x" * self._order.artifact.length)


def test_the_control_says_when_a_row_proves_nothing() -> None:
    """Where an update does not go through even without an attack, no row holds."""
    parts = Parts(fill=BlindFill)
    result = run_row(found("A-12"), attacks()["A-12"], parts)
    assert result.ok is False
    assert "the control ended with device.slot" in result.observed


def test_a_crash_is_a_failure_by_its_name() -> None:
    """An exception that is no error of ours never counts as a refusal."""

    def attack(ground: Ground) -> Observed:
        raise KeyError("nobody caught this")

    result = run_row(found("A-12"), attack)
    assert result.ok is False
    assert result.observed.startswith("crash: KeyError")


def test_an_attack_that_gets_through_does_not_hold() -> None:
    """A row whose attacker does nothing observes an install, which is not the code."""

    def attack(ground: Ground) -> Observed:
        return ground.observed(ground.play(lambda scene: scene.attempt()))

    result = run_row(found("A-12"), attack)
    assert (result.ok, result.observed) == (False, INSTALLED)


@pytest.mark.parametrize("name", ["anchors/image.json", "report.pem", "slots/b"])
def test_what_an_attack_changes_is_seen(name: str) -> None:
    """A refusal that leaves another key, anchor or running slot behind does not hold."""

    def harm(scene: Scene) -> str:
        def attacker(server: Any, request: Any) -> Any:
            path = scene.device.path(name)
            path.chmod(0o600)
            path.write_bytes(path.read_bytes() + b" ")
            path.chmod(0o444 if name.startswith("anchors") else 0o600)
            return server(request)

        files = scene.forger("director", timestamp=[scene.thief["t"]]).role("timestamp")
        return scene.attempt(scene.serve("director", files), attacker)

    result = run_row(found("A-02"), lambda ground: ground.observed(ground.play(harm)))
    assert result.observed.startswith("metadata.signature; ")
    assert result.ok is False


def test_the_fence_sees_what_leaves_the_directory(tmp_path: Path) -> None:
    """Writes elsewhere and processes are noted; reading, and writing inside, is not."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with fenced(inside) as fence:
        (inside / "a").write_text("x")
        (tmp_path / "b").exists()
        assert fence.outside == []
        (tmp_path / "b").write_text("x")
        (inside / "a").rename(tmp_path / "c")
        subprocess.run([sys.executable, "-c", ""], check=True)
    (tmp_path / "d").write_text("x")
    seen = [text.split()[0] for text in fence.outside]
    assert seen[:2] == ["open", "os.rename"]
    assert any("process" in text for text in fence.outside)
    assert not any("/d" in text for text in fence.outside)
