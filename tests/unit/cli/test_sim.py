"""``sealift sim powercut`` as a user types it."""

from __future__ import annotations

import functools
import json

import pytest
from typer.testing import CliRunner

from sealift.cli import sim as command
from sealift.core.errors import BootError, InvalidInputError
from sealift.sim import powercut
from sealift.sim.device import Device, Kind
from sealift.sim.loaders.table import WORLDS
from sealift.sim.powercut import REFERENCE


def run(*words: str) -> tuple[str, BaseException | None]:
    found = CliRunner().invoke(command.app, ["powercut", *words])
    return found.stdout, found.exception


def test_json_is_one_object() -> None:
    """``runs``, ``states``, ``bricks`` and what else a script may want."""
    out, error = run("--runs", "300", "--seed", "4", "--json")
    assert error is None
    found = json.loads(out)
    assert (found["runs"], found["bricks"], found["untruths"]) == (300, 0, 0)
    assert found["states"] > 10
    assert found["seed"] == 4
    assert found["findings"] == []


def test_text_is_for_a_human() -> None:
    """Names and values in two columns."""
    out, error = run("--runs", "120")
    assert error is None
    assert "bricks                  0" in out


def test_one_life_is_replayed() -> None:
    """``--cuts`` shows the trace of one life and what it reported."""
    words = ["--cuts", "24.5", "--loader", "one-shot", "--weather", "lost", "--json"]
    out, error = run(*words)
    assert error is None
    found = json.loads(out)
    assert found["reports"][0]["verdict"] == "rolled_back"
    assert found["faults"] == []
    assert "24: PowerCut" in found["trace"]
    out, _ = run("--cuts", "none", "--image", "good", "--spoil", "1")
    assert "failed device.slot" in out


def test_a_loader_is_chosen() -> None:
    """One by its name, both kinds of the reference loader, or all of them."""
    for name, kinds in (("uboot", {"uboot"}), ("file", set(REFERENCE))):
        out, error = run("--runs", "60", "--loader", name, "--json")
        assert error is None
        scenes = json.loads(out)["scenes"]
        assert {it.partition("/")[2] for it in scenes} == kinds
    out, error = run(
        "--runs", str(len(WORLDS) * len(Kind)), "--loader", "all", "--json"
    )
    assert error is None
    assert len(json.loads(out)["scenes"]) == len(WORLDS) * len(Kind)


@pytest.mark.parametrize(
    "words",
    [
        ["--cuts", "x"],
        ["--cuts", "1", "--image", "nice"],
        ["--cuts", "1", "--loader", "none"],
        ["--loader", "none"],
        ["--cuts", "1", "--weather", "fair"],
    ],
)
def test_what_is_not_known_is_refused(words: list[str]) -> None:
    """input.invalid with a hint, before anything runs."""
    _, error = run(*words)
    assert isinstance(error, InvalidInputError)
    assert error.hint


def test_a_brick_ends_the_command_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A survey with findings is device.boot; its hint replays the first one."""

    class Doomed(Device):
        def faults(self) -> list[str]:
            return ["brick: on purpose"]

    doomed = functools.partial(powercut.survey, device=Doomed)
    monkeypatch.setattr(powercut, "survey", doomed)
    out, error = run("--runs", "20", "--json")
    assert isinstance(error, BootError)
    assert error.hint == json.loads(out)["findings"][0]["replay"]
    assert "--image good --loader counting" in (error.hint or "")
    out, error = run("--runs", "20")
    assert isinstance(error, BootError)
