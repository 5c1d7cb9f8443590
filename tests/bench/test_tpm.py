"""Device rules D28 to D31 against a real TPM 2.0 in software, through Debian's tools."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent import config, keys, making, settings
from sealift.agent.config import Tpm
from sealift.agent.journal import Floors
from sealift.agent.machine import Idle
from sealift.agent.record import FileCells, Record
from sealift.agent.seal import Seal
from sealift.agent.tpm import STEPS_MAX, TpmCounter
from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    MissingToolError,
    SealiftError,
    StateError,
)
from tests.bench.tpm import Swtpm, swtpm

REPORT, STORE, GUARDED = "tpm:0x81010001", "tpm:0x81010003", "tpm:0x81010004?pcr=7"
COUNTER, ECU = "tpm:0x1500016", "dev-0001-main"
INDEX, BASE = "0x1500016", "0x1500017"


@pytest.fixture
def tpm() -> Iterator[Swtpm]:
    """A TPM of this test's own."""
    with swtpm() as found:
        yield found


def reached(tpm: Swtpm) -> Tpm:
    return Tpm((str(tpm.command),), tpm.tcti)


def made(tpm: Swtpm, counter: str = COUNTER) -> TpmCounter:
    making.make("", "", "", counter, reached(tpm))
    return TpmCounter(tpm.tool, counter)


def floors(directory: Path, counter: TpmCounter) -> Floors:
    record = Record(FileCells(str(directory), "floors"), limit=4096, what="floors")
    return Floors(record, {ECU: counter})


# ── D28: the counter ─────────────────────────────────────────────────────────────────
def test_d28_a_new_counter_begins_at_zero_whatever_the_tpm_counted(tpm: Swtpm) -> None:
    """A fresh one starts above all that ever were: the base takes that away."""
    tpm.run(
        "nvdefine",
        "0x1500100",
        "-C",
        "o",
        "-s",
        "8",
        "-a",
        "nt=counter|ownerwrite|ownerread",
    )
    for _ in range(5):
        tpm.run("nvincrement", "0x1500100", "-C", "o")
    tpm.run("nvundefine", "0x1500100", "-C", "o")
    counter = made(tpm)
    assert int.from_bytes(tpm.run("nvread", "-s", "8", "-C", INDEX, INDEX)) > 4
    assert counter.value() == 0
    counter.advance(2)
    counter.advance(1)
    assert TpmCounter(tpm.tool, COUNTER).value() == 2


def test_d28_the_base_cannot_be_written_again(tpm: Swtpm) -> None:
    """Who could write it could lower the floor."""
    made(tpm).advance(3)
    with pytest.raises(subprocess.CalledProcessError):
        tpm.run("nvwrite", "-C", BASE, BASE, "-i", "-", given=bytes(8))


def test_d28_steps_are_small(tpm: Swtpm) -> None:
    """A jump would wear the TPM out: it is left, and the record's floor holds."""
    counter = made(tpm)
    counter.advance(STEPS_MAX + 1)
    assert counter.value() == 0
    counter.advance(STEPS_MAX)
    assert counter.value() == STEPS_MAX


def test_d28_a_cut_before_the_step_is_made_good(tpm: Swtpm, tmp_path: Path) -> None:
    """The record was written, the counter was not: the next start does the rest."""
    counter = made(tpm)
    record = floors(tmp_path, TpmCounter(tpm.tool, COUNTER))
    record.raise_to(ECU, 1)

    class Cut(TpmCounter):
        def advance(self, counter: int) -> None:
            del counter
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        floors(tmp_path, Cut(tpm.tool, COUNTER)).raise_to(ECU, 2)
    assert counter.value() == 1
    again = floors(tmp_path, counter)
    assert again.floor(ECU) == 2
    again.agree({ECU: Idle()})
    assert counter.value() == 2


def test_d28_a_counter_made_anew_is_noticed(tpm: Swtpm, tmp_path: Path) -> None:
    """With the old base it would say too much: `device.state`. With a new one it says
    too little: the record's floor holds, and the counter catches up.
    """
    counter = made(tpm)
    floors(tmp_path, counter).raise_to(ECU, 2)
    for _ in range(2):
        tpm.run("nvundefine", INDEX, "-C", "o")
        attributes = "ownerread|ownerwrite|authread|authwrite|nt=counter|no_da"
        tpm.run("nvdefine", INDEX, "-C", "o", "-s", "8", "-a", attributes)
        tpm.run("nvincrement", INDEX, "-C", INDEX)
    with pytest.raises(StateError, match="of an earlier day"):
        floors(tmp_path, TpmCounter(tpm.tool, COUNTER)).agree({ECU: Idle()})

    tpm.run("nvundefine", INDEX, "-C", "o")
    tpm.run("nvundefine", BASE, "-C", "o")
    anew = made(tpm)
    assert anew.value() == 0
    again = floors(tmp_path, anew)
    assert again.floor(ECU) == 2
    again.agree({ECU: Idle()})
    assert anew.value() == 2


def test_d28_old_lost_and_wiped_floors(tpm: Swtpm, tmp_path: Path) -> None:
    """An older record is refused; a wiped state takes over what the counter says."""
    counter = made(tpm)
    first = tmp_path / "first"
    first.mkdir()
    floors(first, counter).raise_to(ECU, 1)
    kept = {path.name: path.read_bytes() for path in first.iterdir()}
    floors(first, counter).raise_to(ECU, 2)
    for name, raw in kept.items():
        (first / name).write_bytes(raw)
    (first / "floors.1").unlink()
    restored = floors(first, counter)
    assert restored.floor(ECU) == 2
    assert "of an earlier day" in restored.remarks({})[0]
    with pytest.raises(StateError, match="of an earlier day"):
        restored.agree({ECU: Idle()})

    factory = tmp_path / "factory"
    factory.mkdir()
    with pytest.raises(StateError, match="of an earlier day"):
        floors(factory, counter).agree({ECU: Idle()})
    wiped = floors(factory, counter)
    wiped.agree({})
    assert wiped.floor(ECU) == 2
    floors(factory, counter).agree({ECU: Idle()})


def test_d28_making_again_finishes_what_was_begun(tpm: Swtpm) -> None:
    """Defined and not begun, begun and without a base: both become a whole counter."""
    attributes = "ownerread|ownerwrite|authread|authwrite|nt=counter|no_da"
    tpm.run("nvdefine", INDEX, "-C", "o", "-s", "8", "-a", attributes)
    with pytest.raises(StateError, match=f"no counter {INDEX}"):
        TpmCounter(tpm.tool, COUNTER).value()
    counter = made(tpm)
    assert counter.value() == 0
    counter.advance(1)
    assert made(tpm).value() == 1


# ── D29: contexts ────────────────────────────────────────────────────────────────────
def test_d29_ten_signatures_ten_processes(tpm: Swtpm) -> None:
    """No resource manager here, three slots: nothing may be left in them."""
    making.make(REPORT, "", GUARDED, "", reached(tpm))
    assert not tpm.objects()
    key = keys.report_key(REPORT, reached(tpm))
    for number in range(10):
        key.sign(b"%d" % number)
        keys.store_key(GUARDED, reached(tpm))
    code = (
        "import sys; from sealift.agent import keys; from sealift.agent.config import Tpm;"
        f"keys.report_key({REPORT!r}, Tpm((sys.argv[1],), sys.argv[2])).sign(b'x')"
    )
    for _ in range(10):
        words = [sys.executable, "-c", code, str(tpm.command), tpm.tcti]
        subprocess.run(words, check=True)
    assert not tpm.objects()


def test_d29_contexts_of_others_are_flushed(tpm: Swtpm, tmp_path: Path) -> None:
    """Somebody filled the three slots: one flush, and the act is done all the same."""
    making.make(REPORT, "", "", "", reached(tpm))
    for number in range(3):
        tpm.run("createprimary", "-Q", "-C", "o", "-c", str(tmp_path / str(number)))
    assert tpm.objects().count("0x") == 3
    making.make("", "", STORE, "", reached(tpm))
    assert keys.store_key(STORE, reached(tpm))


# ── D30: the fixture ─────────────────────────────────────────────────────────────────
def test_d30_the_tpm_keeps_what_it_has_over_a_restart(tmp_path: Path) -> None:
    """An absolute state directory: keys, counter and base are there again."""
    with swtpm(tmp_path) as first:
        facts = making.make(REPORT, "", STORE, COUNTER, reached(first))
        kept = keys.store_key(STORE, reached(first))
        TpmCounter(first.tool, COUNTER).advance(1)
    with swtpm(tmp_path) as again:
        key = keys.report_key(REPORT, reached(again))
        assert key.key_id == facts["report_key_id"]
        assert keys.store_key(STORE, reached(again)) == kept
        assert TpmCounter(again.tool, COUNTER).value() == 1


# ── D31: PCRs ────────────────────────────────────────────────────────────────────────
def test_d31_an_update_does_not_lock_the_device_out(tpm: Swtpm) -> None:
    """Loader, kernel and command line change PCR 4, 9 and 11: all keys still work."""
    making.make(REPORT, "", GUARDED, COUNTER, reached(tpm))
    before = keys.store_key(GUARDED, reached(tpm))
    for pcr in (4, 9, 11, 12):
        tpm.extend(pcr)
    assert keys.store_key(GUARDED, reached(tpm)) == before
    assert keys.report_key(REPORT, reached(tpm)).sign(b"still")
    TpmCounter(tpm.tool, COUNTER).advance(1)


def test_d31_another_secure_boot_policy_locks_the_store(tpm: Swtpm) -> None:
    """PCR 7 changed: a clear error and the way back; the way back works."""
    making.make(REPORT, "", GUARDED, "", reached(tpm))
    before = keys.store_key(GUARDED, reached(tpm))
    tpm.extend(7)
    with pytest.raises(KeyUnreadableError, match="PCR 7 is not as it was") as caught:
        keys.store_key(GUARDED, reached(tpm))
    assert "docs/agent.md" in (caught.value.hint or "")
    assert keys.report_key(REPORT, reached(tpm)).sign(b"not sealed to it")

    tpm.run("evictcontrol", "-C", "o", "-c", "0x81010004")
    making.make("", "", GUARDED, "", reached(tpm))
    assert Seal(keys.store_key(GUARDED, reached(tpm))) != Seal(before)


def test_d31_without_its_guard_the_store_key_does_not_open(tpm: Swtpm) -> None:
    """The address may not forget what guards the key."""
    making.make("", "", GUARDED, "", reached(tpm))
    with pytest.raises(KeyUnreadableError, match="PCR 7"):
        keys.store_key(GUARDED.partition("?")[0], reached(tpm))


@pytest.mark.parametrize("pcrs", ["4", "9", "11", "7,11", "0", ""])
def test_d31_other_pcrs_are_refused_with_the_reason(pcrs: str) -> None:
    """The configuration says why, before a device is locked out."""
    text = settings.example().replace(
        "[state]\n", f'[state]\nkey = "tpm:0x81010003?pcr={pcrs}"\n', 1
    )
    lines = [line for line in text.splitlines() if line != 'key = ""']
    with pytest.raises(InvalidConfigError, match="would lock the device out"):
        config.parse("\n".join(lines).encode(), "/etc/agent.toml")


# ── what is missing ──────────────────────────────────────────────────────────────────
def refusal(tpm: Tpm) -> SealiftError:
    with pytest.raises(SealiftError) as caught:
        keys.report_key(REPORT, tpm)
    return caught.value


def test_missing_program_names_its_package(tpm: Swtpm) -> None:
    """`config.missing`, and what to install."""
    error = refusal(Tpm(("/nowhere/tpm2",), tpm.tcti))
    assert isinstance(error, MissingToolError)
    assert "tpm2-tools" in (error.hint or "")


def test_missing_tpm_is_said(tpm: Swtpm) -> None:
    """No device node, or one that may not be opened: the way to it is named."""
    for way in ("device:/dev/nowhere", "swtpm:path=/nowhere/s", "nonsense"):
        error = refusal(Tpm((str(tpm.command),), way))
        assert "cannot be reached" in error.message, way
        with pytest.raises(StateError, match="cannot be reached"):
            TpmCounter(keys.tool(Tpm((str(tpm.command),), way)), COUNTER).value()


def test_an_owner_with_a_password_is_said(tpm: Swtpm) -> None:
    """Keys cannot be made then; those that are there work on, nobody is asked."""
    making.make(REPORT, "", STORE, COUNTER, reached(tpm))
    tpm.run("changeauth", "-Q", "-c", "o", "secret")
    with pytest.raises(KeyUnreadableError) as caught:
        making.make("", "tpm:0x81010002", "", "", reached(tpm))
    assert "owner auth" in (caught.value.hint or "")
    assert keys.report_key(REPORT, reached(tpm)).sign(b"still")
    assert keys.store_key(STORE, reached(tpm))
    TpmCounter(tpm.tool, COUNTER).advance(1)
    assert not tpm.objects()


def test_another_kind_of_key_is_no_report_key(tpm: Swtpm) -> None:
    """A sealed object and an RSA key at the handle are both said to be none."""
    making.make("", "", REPORT, "", reached(tpm))
    assert refusal(reached(tpm)).code == "key.unreadable"
