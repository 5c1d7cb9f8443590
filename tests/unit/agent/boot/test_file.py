"""The reference loader's store, byte for byte, and what an agent makes of bad ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.boot.file import (
    Started,
    Store,
    choose,
    open_boot,
    open_store,
    read_running,
    running_text,
)
from sealift.agent.record import unpack
from sealift.core.errors import BootError, MalformedError
from sealift.core.types import Slot

CONDITIONS = st.sampled_from(["empty", "writing", "trial", "good", "bad"])
STORES = st.builds(
    Store,
    st.sampled_from(list(Slot)),
    st.none() | st.sampled_from(list(Slot)),
    st.integers(0, 9),
    CONDITIONS,
    CONDITIONS,
)


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    """A shell script can read them: header line, then ``name=value`` lines."""
    store = open_store(str(tmp_path))
    store.write(Store().marked(Slot.B, "writing"))
    open_boot(str(tmp_path)).set_next(Slot.B, 2)
    header, payload = (tmp_path / "boot.1").read_bytes().split(b"\n", 1)
    assert payload == b"default=a\ntrial=b\ntries=2\na=good\nb=trial\n"
    magic, version, sequence, length, digest = header.split(b" ")
    assert (magic, version) == (b"sealift-record", b"1")
    assert (int(sequence), int(length)) == (2, len(payload))
    summed = b"%s %s\n%s" % (sequence, length, payload)
    assert hashlib.sha256(summed).hexdigest().encode() == digest


def test_the_confirmed_slot_is_written_once_more(tmp_path: Path) -> None:
    """``home.0`` after a confirm from inside slot b."""
    boot = open_boot(str(tmp_path))
    boot.set_next(Slot.B, 1)
    (tmp_path / "running").write_bytes(running_text(Started(Slot.B, "1-ab")))
    boot.mark_good()
    payload = (tmp_path / "home.0").read_bytes().split(b"\n", 1)[1]
    assert payload == b"confirmed=b\n"
    assert boot.boot_id() == "1-ab"
    assert boot.current() is Slot.B


@given(STORES)
def test_every_store_survives_its_text(store: Store) -> None:
    """Through text and back it is equal."""
    assert Store.from_text(store.to_text()) == store


@given(store=STORES, counts=st.booleans())
def test_a_start_never_raises_the_attempts(store: Store, *, counts: bool) -> None:
    """B4, B5: counted down first; without attempts the default starts."""
    slot, after = choose(store, counts=counts)
    assert slot is store.next
    assert (after.default, after.trial) == (store.default, store.trial)
    if store.trial is None or not store.tries:
        assert (slot, after) == (store.default, store)
    else:
        assert after.tries == (store.tries - 1 if counts else 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "default=a\n",
        "default=c\ntrial=-\ntries=0\na=good\nb=empty\n",
        "default=a\ntrial=-\ntries=10\na=good\nb=empty\n",
        "default=a\ntrial=-\ntries=0\na=fine\nb=empty\n",
        "default=a\ntrial=-\ntries=0\na=good\nb=empty\nmore=1\n",
        "default=a\r\ntrial=-\ntries=0\na=good\nb=empty\n",
    ],
)
def test_any_other_text_is_no_store(text: str) -> None:
    """Strict: no line more, none less, no other value."""
    with pytest.raises(MalformedError):
        Store.from_text(text)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"slot=c\nboot_id=1\n",
        b"slot=a\nboot_id=\n",
        b"slot=a\nboot_id=" + b"x" * 65 + b"\n",
        b"slot=a\nboot_id=a/b\n",
        b"slot=a\nboot_id=1\nmore\n",
        b"\xff\xfe",
    ],
)
def test_without_a_word_of_the_loader_nothing_is_guessed(
    tmp_path: Path, raw: bytes | None
) -> None:
    """``running`` missing or of a wrong form: device.boot, with a hint."""
    if raw is not None:
        (tmp_path / "running").write_bytes(raw)
    with pytest.raises(BootError) as refused:
        read_running(str(tmp_path))
    assert refused.value.hint


def test_a_link_in_place_of_running_is_refused(tmp_path: Path) -> None:
    """No link is followed (D-10)."""
    (tmp_path / "real").write_bytes(running_text(Started(Slot.A, "1")))
    (tmp_path / "running").symlink_to(tmp_path / "real")
    with pytest.raises(BootError):
        read_running(str(tmp_path))


def test_a_store_that_cannot_be_written_is_device_boot(tmp_path: Path) -> None:
    """Every verb that writes says so in one code; what booted before still boots."""
    boot = open_boot(str(tmp_path / "none"))
    with pytest.raises(BootError):
        boot.set_next(Slot.B, 3)
    boot = open_boot(str(tmp_path))
    boot.set_next(Slot.B, 3)
    (tmp_path / "running").write_bytes(running_text(Started(Slot.B, "1")))
    (tmp_path / "home.0").mkdir()
    with pytest.raises(BootError):
        boot.mark_good()


def test_the_example_of_the_documentation_is_true(tmp_path: Path) -> None:
    """docs/formats.md shows a whole file; it reads as it says."""
    page = Path(__file__).parents[4] / "docs/formats.md"
    store = page.read_text().partition("### The reference loader")[2]
    example = store.partition("\n### ")[0].split("```\n")[-2]
    assert unpack(example.encode()) is not None
    (tmp_path / "boot.1").touch(0o600)
    (tmp_path / "boot.1").write_bytes(example.encode())
    found = open_store(str(tmp_path)).read()
    assert found == Store(Slot.A, Slot.B, 2, "good", "trial")


def test_a_store_that_cannot_be_read_now_is_device_boot(tmp_path: Path) -> None:
    """Not a lost store: nothing is rescued, nothing is written over it."""
    boot = open_boot(str(tmp_path))
    boot.set_next(Slot.B, 3)
    (tmp_path / "boot.0").chmod(0o644)
    for ask in (boot.next, boot.state, lambda: boot.set_next(Slot.A, 1)):
        with pytest.raises(BootError) as refused:
            ask()
        assert "chmod" in (refused.value.hint or "")
    (tmp_path / "boot.0").chmod(0o600)
    assert boot.next() is Slot.B


def test_a_loader_that_cannot_count_gives_one_start(tmp_path: Path) -> None:
    """Whatever was asked for; and it says so."""
    boot = open_boot(str(tmp_path), counts=False)
    boot.set_next(Slot.B, 5)
    assert boot.state().slots[Slot.B] == "trial(1)"
    assert not boot.state().counts_attempts


def test_a_fifo_for_running_hangs_nobody(tmp_path: Path) -> None:
    """A pipe without a writer where the loader's word should be: device.boot."""
    os.mkfifo(tmp_path / "running")
    with pytest.raises(BootError, match="wrong form"):
        open_boot(str(tmp_path)).current()
