"""The integrator's program: what is asked of it, and what no answer may be."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sealift.agent.boot.script import CommandProgram, ScriptBoot
from sealift.agent.clock import SystemClock
from sealift.core.errors import BootError, MissingToolError
from sealift.core.types import Slot
from tests.unit.agent.contracts.loaders import EXAMPLE

STATE = "loader=vendor\ncounts=yes\nconfirmed=a\na=good\nb=empty\n"


class Says:
    """A program that answers from a table and remembers what it was asked."""

    def __init__(self, **answers: str) -> None:
        self.answers = {"current": "a\n", "next": "a\n", "state": STATE} | answers
        self.asked: list[tuple[str, ...]] = []

    def ask(self, *words: str) -> str:
        self.asked.append(words)
        return self.answers.get(words[0].replace("-", "_"), "")

    @property
    def told(self) -> list[tuple[str, ...]]:
        """What was more than a question."""
        return [it for it in self.asked if it[0] not in {"current", "next", "state"}]


def boot(program: Says) -> ScriptBoot:
    return ScriptBoot(program, lambda: "boot-1")


# ── what is asked ────────────────────────────────────────────────────────────────────
def test_the_verbs_are_as_documented() -> None:
    """Each verb once, with the slot and the starts behind it."""
    program = Says()
    boot(program).mark_writing(Slot.B)
    boot(program).set_next(Slot.B, 3)
    boot(program).set_next(Slot.B, 30)
    boot(program).mark_good()
    assert program.told == [
        ("mark-writing", "b"),
        ("set-next", "b", "3"),
        ("set-next", "b", "9"),
        ("mark-good",),
    ]
    assert boot(program).boot_id() == "boot-1"


def test_what_seems_to_be_done_is_told_again() -> None:
    """Whoever did it may have been killed before it was durable."""
    writing = Says(state=STATE.replace("b=empty", "b=writing"))
    armed = Says(state=STATE.replace("b=empty", "b=trial(3)"), next="b\n")
    home = Says()
    boot(writing).mark_writing(Slot.B)
    boot(armed).set_next(Slot.B, 3)
    boot(home).set_next(Slot.A, 3)
    told = [*writing.told, *armed.told, *home.told]
    assert told == [
        ("mark-writing", "b"),
        ("set-next", "b", "3"),
        ("set-next", "a", "1"),
    ]


def test_a_loader_that_cannot_count_gives_one_start() -> None:
    """Whatever was asked for."""
    program = Says(state=STATE.replace("counts=yes", "counts=no"))
    boot(program).set_next(Slot.B, 5)
    assert program.told == [("set-next", "b", "1")]


def test_what_the_loader_lacks_stops_an_update_before_it_begins() -> None:
    """``missing=`` of the program: nothing is armed, going home is possible."""
    program = Says(state=STATE + "missing=no watchdog\nremark=old\n", next="b\n")
    state = boot(program).state()
    assert (state.missing, state.remarks) == (("no watchdog",), ("old",))
    with pytest.raises(BootError, match="no watchdog"):
        boot(program).set_next(Slot.B, 3)
    boot(program).set_next(Slot.A, 3)
    assert program.told == [("set-next", "a", "1")]


def test_a_slot_in_use_is_not_asked_for() -> None:
    """Neither what runs nor what is confirmed, whatever the program would say."""
    program = Says(current="b\n")
    for slot in Slot:
        with pytest.raises(BootError, match="in use"):
            boot(program).mark_writing(slot)
    assert not program.told


# ── what is no answer ────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "answer", ["", "a", "c\n", "A\n", "a\nb\n", " a\n", "a\r\n", "slot=a\n"]
)
@pytest.mark.parametrize("verb", ["current", "next"])
def test_a_slot_is_one_letter_and_a_line_end(verb: str, answer: str) -> None:
    """Nothing more and nothing less."""
    control = boot(Says(**{verb: answer}))
    with pytest.raises(BootError, match=f"answers {verb}") as refused:
        control.current() if verb == "current" else control.next()
    assert refused.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        "",
        STATE[:-1],
        STATE + "\n",
        STATE + "more=1\n",
        STATE + "remark=\n",
        STATE + "remark=\x1b[2J\n",
        STATE + f"remark={'x' * 201}\n",
        STATE + "remark=x\n" * 17,
        STATE.replace("yes", "true"),
        STATE.replace("confirmed=a", "confirmed=-"),
        STATE.replace("confirmed=a\n", ""),
        STATE.replace("a=good", "a=fine"),
        STATE.replace("b=empty", "b=trial(10)"),
        STATE.replace("b=empty", "b=trial"),
        STATE.replace("vendor", "-"),
        "\n".join(reversed(STATE.splitlines())) + "\n",
    ],
)
def test_a_state_of_another_form_is_refused(answer: str) -> None:
    """Every line, in this order; texts are printable and bounded."""
    program = Says(state=answer)
    for verb in (
        boot(program).state,
        lambda: boot(program).set_next(Slot.B, 1),
        lambda: boot(program).mark_writing(Slot.B),
    ):
        with pytest.raises(BootError, match="answers state"):
            verb()
    assert not program.told


def test_words_where_none_belong() -> None:
    """A program that has something to say has not understood."""
    with pytest.raises(BootError, match="answers mark-good"):
        boot(Says(mark_good="done\n")).mark_good()


# ── processes ────────────────────────────────────────────────────────────────────────
def run(script: str, deadline: float = 20.0) -> CommandProgram:
    return CommandProgram(["/bin/sh", "-c", script, "x"], SystemClock(), deadline)


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("exit 1", "status 1"),
        ("echo no room; exit 3", "no room"),
        ("kill -9 $$", "status -9"),
        ("head -c 9000 /dev/zero", "too much"),
        ("head -c 200000 /dev/zero", "too much"),
        ("printf '\\377'", "ASCII"),
    ],
)
def test_a_program_that_fails(script: str, word: str) -> None:
    """device.boot with a hint, and its first words."""
    with pytest.raises(BootError, match=word) as refused:
        run(script).ask("next")
    assert refused.value.hint


def test_a_program_that_hangs_is_ended() -> None:
    """With all it started."""
    began = time.monotonic()
    with pytest.raises(BootError, match="did not end"):
        run("sleep 60 & sleep 60", 0.3).ask("next")
    assert time.monotonic() - began < 30


def test_a_program_that_is_not_there() -> None:
    """config.missing names the setting."""
    with pytest.raises(MissingToolError) as refused:
        CommandProgram(["/nowhere/program"], SystemClock(), 1.0).ask("next")
    assert "[boot] program" in (refused.value.hint or "")


def test_what_it_says_on_standard_error_is_no_answer() -> None:
    """Warnings of a shell do not spoil one."""
    assert run("echo warning >&2; echo a").ask("current") == "a\n"


# ── the example ──────────────────────────────────────────────────────────────────────
def example(directory: Path, words: Sequence[str]) -> str:
    where = [str(EXAMPLE), str(directory), str(directory / "running")]
    return CommandProgram(where, SystemClock(), 20.0).ask(*words)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "default=a\n",
        "default=c\ntrial=-\ntries=0\na=good\nb=empty\n",
        "default=a\ntrial=-\ntries=10\na=good\nb=empty\n",
        "default=a\ntrial=-\ntries=0\na=good\nb=empty\nmore=1\n",
        "\0\0\0\0",
    ],
)
def test_the_example_refuses_a_file_that_is_not_whole(
    tmp_path: Path, content: str
) -> None:
    """It guesses nothing and writes nothing."""
    (tmp_path / "boot.txt").write_text(content)
    (tmp_path / "running").write_text("a\n")
    for words in (["state"], ["next"], ["mark-good"], ["set-next", "b", "3"]):
        with pytest.raises(BootError):
            example(tmp_path, words)
    assert (tmp_path / "boot.txt").read_text() == content


@pytest.mark.parametrize(
    "words",
    [
        ["reboot"],
        ["set-next", "c", "1"],
        ["set-next", "b", "0"],
        ["set-next", "b", "$(touch x)"],
        ["set-next", "b"],
        ["mark-writing"],
        ["mark-writing", "a"],
        ["mark-writing", "../b"],
    ],
)
def test_the_example_refuses_what_it_does_not_know(
    tmp_path: Path, words: list[str]
) -> None:
    """Unknown verbs, slots and numbers."""
    (tmp_path / "boot.txt").write_text("default=a\ntrial=-\ntries=0\na=good\nb=empty\n")
    (tmp_path / "running").write_text("a\n")
    before = (tmp_path / "boot.txt").read_text()
    with pytest.raises(BootError, match="status 1"):
        example(tmp_path, words)
    assert (tmp_path / "boot.txt").read_text() == before
    assert (
        shlex.join(sorted(it.name for it in tmp_path.iterdir())) == "boot.txt running"
    )
