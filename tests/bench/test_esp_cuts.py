"""What a hundred cuts leave on an EFI partition: nothing that stays (device-D11)."""

from __future__ import annotations

import json
from pathlib import Path

from sealift.agent.efivars import LOADER as VENDOR
from sealift.agent.efivars import as_value
from tests.bench import gpt, small, toolbox
from tests.bench.blocklog import Disk
from tests.bench.judge import Judge, Variables
from tests.bench.recorder import run
from tests.bench.test_replay_systemd_boot import artifact

CUTS = 100
_JOB = """set -e
PYTHONPATH=/sealift python3 /espcuts.py /facts.json
"""


def test_D11_the_partition_is_tidy_after_100_cuts(tmp_path: Path) -> None:
    two, three = small.release(tmp_path, 2), small.release(tmp_path, 3)
    boot_files = {"EFI/Linux/sealift-a.efi": two.boot}
    disk = small.disk(tmp_path, {"a": two, "b": three}, boot_files)
    first, sectors = gpt.of_file(disk)["esp"]
    facts = {
        "image": artifact(three).to_json(),
        "first": first * gpt.SECTOR,
        "length": sectors * gpt.SECTOR,
        "cuts": CUTS,
        "seed": 100,
    }
    pinned = (7).to_bytes(4, "little") + as_value("sealift-a*")
    files = {
        "espcuts.py": (Path(__file__).parent / "espcuts.py").read_bytes(),
        "facts.json": json.dumps(facts).encode(),
        f"vars/LoaderEntryDefault-{VENDOR}": pinned,
        "bin/fsck.fat": Path(toolbox.program("fsck.fat")).read_bytes(),
    }
    said = run(_JOB, disk, files, 540)
    assert f"CUTS {CUTS}" in said
    after = Disk(disk, None, gpt.of_file(disk))
    judge = Judge(after, [two.signed, three.signed])
    partition = judge.partition()
    assert not partition.faults, partition.faults
    assert partition.lost == 0
    assert partition.leftovers == 0
    assert {it.name for it in partition.entries} == {
        "sealift-a.efi",
        "sealift-b.efi",
    }
    verdict = judge.verdict(Variables("sealift-b*"))
    assert (verdict.passed, verdict.release) == (True, "os-3.img"), verdict
