"""U-Boot's environment: the real programs, what they refuse, and what is bad in it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.boot.uboot import (
    LOOKED_AT,
    WRITTEN,
    Chosen,
    Tools,
    UbootBoot,
    UbootTools,
    chosen,
)
from sealift.agent.clock import SystemClock
from sealift.core.errors import BootError, MissingToolError
from sealift.core.types import Slot
from sealift.sim.loaders.uboot import (
    FACTORY,
    UbootWorld,
    pack_copy,
    unpack_copy,
)
from tests.bench import toolbox
from tests.unit.agent.contracts.loaders import ENV_BYTES, UbootOnDisk

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def world(tmp_path: Path) -> UbootOnDisk:
    return UbootOnDisk(tmp_path)


def provision(world: UbootOnDisk, variables: Mapping[str, str]) -> None:
    for flag, path in enumerate(world.copies):
        path.write_bytes(pack_copy(flag, variables, ENV_BYTES))


def raw(world: UbootOnDisk) -> list[tuple[int, dict[str, str]] | None]:
    return [unpack_copy(path.read_bytes()) for path in world.copies]


class Told:
    """An environment in a dictionary, with a count of the writes."""

    def __init__(self, **changes: str) -> None:
        self.found = {**FACTORY, **changes}
        self.writes: list[Mapping[str, str]] = []
        self.settled = False

    def read(self) -> Mapping[str, str]:
        return {name: self.found.get(name, "") for name in (*WRITTEN, *LOOKED_AT)}

    def settle(self) -> None:
        self.settled = True

    def write(self, changes: Mapping[str, str]) -> None:
        assert self.settled, "what was found was not made durable first"
        self.writes.append(changes)
        self.found |= changes


def control(told: Told, running: Slot = Slot.A) -> UbootBoot:
    return UbootBoot(
        told, lambda: running, lambda: "boot-1", chosen=lambda: Chosen("U-Boot")
    )


# ── one call, one write ──────────────────────────────────────────────────────────────
def test_the_steps_are_as_documented() -> None:
    """Each verb writes at most once, and exactly these variables (device-D21)."""
    told = Told()
    boot = control(told)
    rest = {"slot": "a", "bootcount": "0", "upgrade_available": "0"}
    boot.mark_writing(Slot.B)
    boot.set_next(Slot.B, 3)
    boot.set_next(Slot.A, 3)
    boot.set_next(Slot.B, 3)
    control(told, Slot.B).mark_good()
    armed = {
        "slot": "b",
        "bootcount": "0",
        "upgrade_available": "1",
        "b_state": "trial",
    }
    assert told.writes == [
        {**rest, "b_state": "writing"},
        armed,
        {**rest, "b_state": "bad"},
        armed,
        {**rest, "slot": "b", "good": "b", "b_state": "good"},
    ]
    for step in told.writes:
        assert set(step) <= set(WRITTEN)


def test_D21_a_step_changes_one_copy_and_keeps_the_rest(world: UbootOnDisk) -> None:
    """The older copy is written, with all that U-Boot and others keep in it."""
    provision(world, {**FACTORY, "ethaddr": "02:00:00:00:00:01"})
    newer = world.copies[1].read_bytes()
    world.boot().set_next(Slot.B, 3)
    first, second = raw(world)
    assert world.copies[1].read_bytes() == newer
    assert first is not None
    assert second is not None
    assert first[0] == second[0] + 1
    assert first[1]["ethaddr"] == "02:00:00:00:00:01"
    changed = {name for name, it in first[1].items() if second[1].get(name) != it}
    assert changed == {"slot", "upgrade_available", "b_state"}


def test_D21_a_step_is_one_write_and_one_fsync(
    world: UbootOnDisk, tmp_path: Path
) -> None:
    """System calls of the real program: one copy opened for writing, once."""
    log = tmp_path / "calls"
    real, strace = toolbox.program("fw_setenv"), toolbox.program("strace")
    watched = "open,openat,write,pwrite64,fsync,fdatasync"
    traced = program(
        tmp_path, f'exec {strace} -f -y -e trace={watched} -o {log} {real} "$@"'
    )
    UbootBoot(world.tools(traced), lambda: Slot.A, lambda: "1").set_next(Slot.B, 3)
    copies = [it for it in log.read_text().splitlines() if str(world.copies[0]) in it]
    calls = [line.split()[1].partition("(")[0] for line in copies]
    writable = [line for line in copies if "O_RDWR" in line or "O_WRONLY" in line]
    assert len(writable) == 1, copies
    assert calls[-2:] == ["write", "fsync"], copies
    assert set(calls[:-2]) == {"openat"}, copies


def test_the_flag_wraps(world: UbootOnDisk) -> None:
    """255 is followed by 0: what libubootenv writes then is what counts."""
    for flag, path in zip((254, 255), world.copies, strict=True):
        path.write_bytes(pack_copy(flag, FACTORY, ENV_BYTES))
    world.boot().set_next(Slot.B, 3)
    assert world.boot().next() is Slot.B
    assert world.start() is Slot.B
    assert {it[0] for it in raw(world) if it} == {0, 1}


def test_one_torn_copy_is_the_other_one(world: UbootOnDisk) -> None:
    """At any length of the newer copy: the state before, and the next step heals."""
    world.boot().set_next(Slot.B, 3)
    whole = world.copies[0].read_bytes()
    for kept in (0, 4, 5, 40, ENV_BYTES - 1):
        world.copies[0].write_bytes(whole[:kept].ljust(ENV_BYTES, b"\xff"))
        assert world.boot().next() is Slot.A
        assert world.start() is Slot.A
    world.boot().set_next(Slot.B, 3)
    assert world.boot().next() is Slot.B


# ── lost ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("damage", [b"\xff", b"\0", b"slot=b\0"])
def test_D20_both_copies_torn_is_device_boot(world: UbootOnDisk, damage: bytes) -> None:
    """No verb guesses, none writes; D22: U-Boot starts what is compiled in."""
    for path in world.copies:
        path.write_bytes((damage * ENV_BYTES)[:ENV_BYTES])
    before = world.stored()
    boot = world.boot()
    verbs = (
        boot.next,
        boot.state,
        boot.mark_good,
        lambda: boot.mark_writing(Slot.B),
        lambda: boot.set_next(Slot.B, 3),
        lambda: boot.set_next(Slot.A, 3),
    )
    for verb in verbs:
        with pytest.raises(BootError, match="no copy of U-Boot's environment") as lost:
            verb()
        assert "provision" in (lost.value.hint or "")
    assert world.stored() == before
    assert boot.current() is Slot.A
    assert world.start() is Slot.A
    assert world.start(lambda slot: slot is Slot.B) is Slot.B


def test_provisioning_as_the_guide_says(world: UbootOnDisk, tmp_path: Path) -> None:
    """docs/integrating.md: ``-f`` and ``-s`` of one file, for the slot that runs."""
    initial = tmp_path / "initial.txt"
    running = {**FACTORY, "slot": "b", "good": "b", "a_state": "bad", "b_state": "good"}
    initial.write_text("".join(f"{name}={it}\n" for name, it in running.items()))
    for path in world.copies:
        path.write_bytes(b"\xff" * ENV_BYTES)
    where = ["-c", str(world.config), "-f", str(initial), "-s", str(initial)]
    subprocess.run(
        [toolbox.program("fw_setenv"), *where],
        env=toolbox.environment(),
        check=True,
        timeout=60,
    )
    assert world.start() is Slot.B
    state = world.boot().state()
    assert state.slots == {Slot.A: "bad", Slot.B: "good"}
    assert not state.missing
    world.boot().mark_writing(Slot.A)
    world.boot().set_next(Slot.A, 3)
    assert world.start() is Slot.A


# ── set up wrongly ───────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bootlimit": ""}, "bootlimit"),
        ({"bootlimit": "0"}, "bootlimit"),
        ({"bootlimit": "many"}, "bootlimit"),
        ({"altbootcmd": ""}, "altbootcmd"),
        ({"bootcmd": "run start_slot"}, "bootcmd"),
        ({"bootcmd": "echo reset me"}, "bootcmd"),
        ({"bootcmd": ""}, "bootcmd"),
        ({"upgrade_available": ""}, "upgrade_available"),
    ],
)
def test_D23_what_the_loader_lacks_is_seen_before_the_first_update(
    changes: dict[str, str], word: str
) -> None:
    """Each is told by ``state``, and nothing can be armed; going home always can."""
    told = Told(**changes)
    [missing] = control(told).state().missing
    assert missing.startswith(word)
    with pytest.raises(BootError, match=word) as refused:
        control(told).set_next(Slot.B, 3)
    assert refused.value.hint
    assert not told.writes
    control(told).set_next(Slot.A, 3)
    control(told).mark_good()


@pytest.mark.parametrize(
    "bootcmd", ["reset", "run x; reset", "run x;reset;", "a\nreset\n"]
)
def test_ways_to_end_in_reset(bootcmd: str) -> None:
    """With or without a separator behind it."""
    assert not control(Told(bootcmd=bootcmd)).state().missing


def test_remarks_on_what_is_odd() -> None:
    """Not a reason to stop, and worth a look."""
    told = Told(slot="b", upgrade_available="1")
    [remark] = control(told, Slot.B).state().remarks
    assert "not counted" in remark
    [remark] = control(Told(slot="b")).state().remarks
    assert "never confirmed" in remark
    [remark] = control(Told(altbootcmd="run start_good")).state().remarks
    assert "altbootcmd" in remark
    state = control(Told()).state()
    assert (state.loader, state.version, state.counts_attempts) == (
        "uboot",
        "U-Boot",
        True,
    )


WORDS = st.sampled_from(["a", "b", "", "c", "A", "a b"])
NUMBERS = st.sampled_from(["", "0", "1", "2", "3", "4", "9", "-1", "x", "1x", "255"])


@given(
    st.fixed_dictionaries(
        {
            "slot": WORDS,
            "good": WORDS,
            "bootcount": NUMBERS,
            "upgrade_available": st.sampled_from(["0", "1", "", "2", "yes"]),
            "a_state": st.sampled_from(["good", "bad", "trial", "", "?"]),
            "b_state": st.sampled_from(["empty", "writing", "trial", "", "?"]),
        }
    )
)
def test_next_is_what_uboot_does_or_nothing_is_said(found: dict[str, str]) -> None:
    """Any environment: the answer is the loader's decision, or ``device.boot``."""
    world = UbootWorld()
    for at in (0, 1):
        world.flash.make(f"env.{at}", pack_copy(at, {**FACTORY, **found}))
    try:
        told = world.boot().next()
        state = world.boot().state()
    except BootError:
        return
    assert world.start() is told
    on_trial = state.slots[told].startswith("trial")
    assert on_trial is (told is not world.home() and found["upgrade_available"] == "1")


# ── garbage ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "changes",
    [
        {"good": ""},
        {"good": "c"},
        {"slot": "A"},
        {"slot": "a b"},
        {"bootcount": "-1"},
        {"bootcount": "0x1"},
        {"upgrade_available": "yes"},
        {"a_state": "fine"},
    ],
)
def test_a_variable_of_a_wrong_form_is_never_guessed(changes: dict[str, str]) -> None:
    """device.boot names it; nothing is written over it."""
    told = Told(**changes)
    [name] = changes
    verbs = (
        lambda: control(told).state(),
        lambda: control(told).next(),
        lambda: control(told).set_next(Slot.B, 1),
        lambda: control(told).mark_good(),
        lambda: control(told).mark_writing(Slot.B),
    )
    for verb in verbs:
        with pytest.raises(BootError, match=f"variable {name}") as refused:
            verb()
        assert refused.value.hint
    assert not told.writes


def test_conditions_that_were_never_written() -> None:
    """Provisioned with the compiled-in environment only: good is good, b is empty."""
    told = Told(a_state="", b_state="")
    assert control(told).state().slots == {Slot.A: "good", Slot.B: "empty"}


def test_an_environment_with_everything_in_it(world: UbootOnDisk) -> None:
    """Line ends, names that look like ours inside values, bytes outside ASCII."""
    odd = "run start_slot\nslot=b\ngood=b\nreset"
    provision(
        world,
        {"aslot": "b", **FACTORY, "bootcmd": odd, "zslot": "b", "logo": "Ümlaut"},
    )
    state = world.boot().state()
    assert state.slots == {Slot.A: "good", Slot.B: "empty"}
    assert not state.missing
    assert world.boot().next() is Slot.A
    provision(world, {**FACTORY, "slot": "a\ngood=b"})
    with pytest.raises(BootError, match="form unknown"):
        world.boot().next()


def test_a_store_that_forgets_what_was_written() -> None:
    """A write that is not there when it is read back is device.boot, not success."""

    class Forgetful(Told):
        def write(self, changes: Mapping[str, str]) -> None:
            """Do nothing."""

    with pytest.raises(BootError, match="does not hold"):
        control(Forgetful()).set_next(Slot.B, 3)


# ── the programs themselves ──────────────────────────────────────────────────────────
def tools(directory: Path, printer: str, deadline: float = 20.0) -> UbootTools:
    paths = Tools(printer, str(directory / "none"), "/nowhere", deadline)
    return UbootTools(paths, SystemClock())


def program(directory: Path, script: str) -> str:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_missing_program_names_the_package(tmp_path: Path) -> None:
    """config.missing for both."""
    for ask in (
        tools(tmp_path, str(tmp_path / "none")).read,
        lambda: tools(tmp_path, "/bin/true").write({"slot": "a"}),
    ):
        with pytest.raises(MissingToolError) as refused:
            ask()
        assert "libubootenv-tool" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("exit 1", "status 1"),
        ("kill -9 $$", "status -9"),
        ("exit 0", "form unknown"),
        ("echo slot=a", "form unknown"),
        ("yes slot=a", "too long|did not end"),
        ("head -c 70000 /dev/zero", "too long"),
        ("head -c 3000 /dev/urandom", "form unknown"),
    ],
)
def test_a_program_that_answers_badly(tmp_path: Path, script: str, word: str) -> None:
    """device.boot, whatever it says."""
    with pytest.raises(BootError, match=word):
        tools(tmp_path, program(tmp_path, script), 2.0).read()


def test_a_program_that_hangs(tmp_path: Path) -> None:
    """It is ended at its deadline, children and all."""
    began = time.monotonic()
    with pytest.raises(BootError, match=r"did not end in 0\.3 s"):
        tools(tmp_path, program(tmp_path, "sleep 60 & sleep 60"), 0.3).read()
    assert time.monotonic() - began < 30


def test_it_gets_a_clean_environment_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are arguments; what we were started with does not reach it."""
    monkeypatch.setenv("LD_PRELOAD_OF_SOMEBODY", "1")
    seen = tmp_path / "seen"
    script = program(tmp_path, f'env > {seen}; echo "$@" >> {seen}; exit 1')
    with pytest.raises(BootError):
        tools(tmp_path, script).read()
    assert "SOMEBODY" not in seen.read_text()
    assert f"-c /nowhere {' '.join((*WRITTEN, *LOOKED_AT))}" in seen.read_text()


def test_a_configuration_that_is_missing(tmp_path: Path) -> None:
    """The real program says no; so do we."""
    where = Tools(toolbox.program("fw_printenv"), "/none", str(tmp_path / "no"), 20.0)
    with pytest.raises(BootError):
        UbootTools(where, SystemClock(), toolbox.environment()).read()


@pytest.mark.parametrize(
    "text",
    [
        "# copies\n{0} 0 0x2000\n{1} 0x0 0x2000 0x1000 2\n",
        "/dev/ubi0:env 0 0x2000\nmtd:u-boot-env 0 0x2000\n",
        'uboot:\n  devices:\n    - path: {0}\n      offset: 0\n    - path : "{1}"\n',
    ],
)
def test_what_was_found_is_made_durable_wherever_it_lies(
    world: UbootOnDisk, text: str
) -> None:
    """Files, volumes of UBI, which are so by themselves, and libubootenv's YAML."""
    world.config.write_text(text.format(*world.copies))
    world.tools().settle()
    if "{0}" in text:
        world.copies[1].unlink()
        with pytest.raises(BootError, match="No such file"):
            world.tools().settle()


@pytest.mark.parametrize("text", ["", "# nothing\n", "\xff\n", "uboot:\n  size: 1\n"])
def test_a_configuration_without_a_place(world: UbootOnDisk, text: str) -> None:
    """device.boot: nothing is written that could not be made durable."""
    world.config.write_text(text)
    with pytest.raises(BootError, match="names no place"):
        world.tools().settle()
    world.config.unlink()
    with pytest.raises(BootError, match="No such file"):
        world.tools().settle()


def test_a_place_without_a_cache_needs_no_flush(world: UbootOnDisk) -> None:
    """Raw flash says EINVAL to fsync; so does /dev/null here."""
    world.config.write_text("/dev/null 0x0 0x2000\n")
    world.tools().settle()


def test_a_store_that_cannot_be_written(world: UbootOnDisk) -> None:
    """A full or missing medium: device.boot, and the state before stands."""
    world.copies[0].unlink()
    world.copies[0].mkdir()
    with pytest.raises(BootError):
        world.boot().set_next(Slot.B, 3)


# ── the version ──────────────────────────────────────────────────────────────────────
def test_what_uboot_says_in_the_device_tree(tmp_path: Path) -> None:
    """Texts end in NUL, numbers have four bytes; absent or odd, nothing was said."""
    assert chosen(str(tmp_path)) == Chosen()
    tree = tmp_path / "device-tree/chosen"
    tree.mkdir(parents=True)
    (tree / "u-boot,version").write_bytes(b"2023.01+dfsg-2\0")
    (tree / "sealift,bootlimit").write_bytes(b"\0\0\0\2")
    assert chosen(str(tmp_path)) == Chosen("2023.01+dfsg-2", 2)
    (tree / "u-boot,version").write_bytes(b"\x1b[2J\0")
    (tree / "sealift,bootlimit").write_bytes(b"2\0")
    assert "\x1b" not in chosen(str(tmp_path)).version
    assert chosen(str(tmp_path)).limit is None


def test_what_uboot_says_counts_for_more_than_the_store() -> None:
    """A limit that is compiled in, whatever stands in the environment."""
    told = Told(bootlimit="", slot="b", upgrade_available="1", bootcount="1")
    boot = UbootBoot(told, lambda: Slot.B, lambda: "1", chosen=lambda: Chosen("", 2))
    assert not boot.state().missing
    assert boot.state().slots[Slot.B] == "trial(1)"
    assert boot.next() is Slot.B
    told.found["bootcount"] = "2"
    assert boot.next() is Slot.A
    none = UbootBoot(Told(), lambda: Slot.A, lambda: "1", chosen=lambda: Chosen("", 0))
    assert "bootlimit" in none.state().missing[0]
