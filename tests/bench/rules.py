"""The rules of real devices, D1 to D38, each with the tests that hold it.

``python -m tests.bench.rules`` writes docs/device-rules.md; a test compares the page
and sees that every test named here exists. A rule that nothing holds says why not.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/device-rules.md"
LAST = 38

_HEAD = """# Rules of real devices

What boot loaders, file systems, TPMs and emulators do that one has to know, and the
tests that hold us to it. `python -m tests.bench.rules` writes this page from the list of
the same name; a test compares it and looks for every test that is named. A dagger (†)
says what no test shows, and why.

| rule | what it asks | held by |
|---|---|---|
"""

_BENCH = "tests/bench"
_BOOT = "tests/unit/agent/boot"
_CONTRACT = "tests/unit/agent/contracts/test_boot_control.py"
_SYSTEMD_BOOT = f"{_BOOT}/test_systemd_boot.py"
_UBOOT = f"{_BOOT}/test_uboot.py"
_MOUNTED = "tests/unit/agent/test_mounted.py"
_DESK = "tests/integration/test_secure_boot.py"
_VERITY = "tests/unit/core/test_verity.py"
_REPLAY = f"{_BENCH}/test_replay_reference.py"
_RESULT = f"{_BENCH}/test_replay_systemd_boot.py"
_UEFI = f"{_BENCH}/test_uefi_refusals.py"
_UEFI_UPDATE = f"{_BENCH}/test_uefi_update.py"
_ARM = f"{_BENCH}/test_uboot_refusals.py"
_ARM_UPDATE = f"{_BENCH}/test_uboot_update.py"
_ARM_STORE = f"{_BENCH}/test_uboot_environment.py"
_CUTS = f"{_BENCH}/test_powercut_uefi.py"
_QEMU = f"{_BENCH}/test_qemu.py"
_TPM = f"{_BENCH}/test_tpm.py"
_KEYS = "tests/unit/agent/contracts/test_keys.py"
_GRUB = f"{_BENCH}/test_grub.py"
_ENVIRONMENTS = f"{_BENCH}/test_replay_environments.py"
_UNITS = f"{_BENCH}/test_systemd.py"
_WATCHDOG = "tests/unit/agent/test_watchdog.py"
_HANG = "tests/integration/test_agent_watchdog.py"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its id, what it asks, who holds it, and what nobody does."""

    id: str
    asks: str
    tests: tuple[str, ...] = ()
    lacks: str = ""


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names)


RULES = (
    Rule(
        "D1",
        "systemd-boot stops at an image that is refused: a slot on trial is reached by one-shot with home pinned; without EFI variables by a counted name, and then a hardware watchdog is needed",
        _of(
            _UEFI,
            "test_one_shot_of_a_refused_boot_file_is_home_in_the_same_power_on",
            "test_a_counted_name_of_a_refused_boot_file_needs_a_power_cycle",
            "test_a_plain_name_of_a_refused_boot_file_is_a_dead_board",
        )
        + _of(
            _SYSTEMD_BOOT,
            "test_device_D1_refused_by_one_shot_is_home_in_the_same_power_on",
            "test_device_D1_refused_by_name_is_a_stop",
            "test_device_D1_home_is_pinned_before_anything_is_armed",
            "test_device_D1_without_variables_a_watchdog_is_asked_for",
        ),
    ),
    Rule(
        "D2",
        "Which slot runs is read from the mounted root, not from what the loader says it selected",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D2_current_with_lying_variables",
        )
        + _of(
            _MOUNTED,
            "test_verity_over_crypt_over_a_partition",
        )
        + _of(
            _CONTRACT,
            "test_every_start_is_told_from_the_others",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_device_updates_itself",
        ),
    ),
    Rule(
        "D3",
        "The default entry beats every counter: it names home, and changes only when something is confirmed",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D3_default_names_home_at_every_write",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_device_updates_itself",
        ),
    ),
    Rule(
        "D4",
        "No rename as a commit on vfat: the variable first, then copy, flush, remove",
        _of(
            _REPLAY,
            "test_D4_a_rename_as_a_commit_loses_the_entry",
            "test_D4_copy_then_remove_loses_it_nowhere",
        )
        + _of(
            _RESULT,
            "test_every_cut_leaves_a_bootable_verified_truthful_disk",
        ),
    ),
    Rule(
        "D5",
        "No `-o sync` and no `dirsync`: fsync, syncfs, read back",
        _of(
            _REPLAY,
            "test_D5_sync_writes_a_thousand_times_and_flushes_no_more",
        )
        + _of(
            _SYSTEMD_BOOT,
            "test_device_D5_a_synchronous_mount_is_told",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_device_updates_itself",
        ),
    ),
    Rule(
        "D6",
        "A boot file is read back and verified (digest, signature, root hash of the slot) before its name appears where the loader looks",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D6_flip_one_byte_after_fsync",
            "test_device_D6_a_boot_file_for_another_root_gets_no_name",
            "test_device_D6_what_changed_after_it_was_placed_is_not_armed",
        ),
        lacks="the agent does not check the firmware's signature itself; digest and root hash are signed in metadata",
    ),
    Rule(
        "D7",
        "An EFI variable: clear the immutable flag first, then one write for the whole of it",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D7_the_immutable_mark_goes_first_and_one_write_is_one_set",
            "test_the_request_numbers_are_the_kernels",
        )
        + _of(
            _UEFI_UPDATE,
            "test_an_older_release_is_refused_before_a_byte_of_it_is_fetched",
        ),
    ),
    Rule(
        "D8",
        "A variable store that was cut is judged by booting it",
        _of(
            _CUTS,
            "test_D8_a_cut_in_set_variable_leaves_the_old_or_the_new_value",
            "test_what_the_judge_flags_and_what_it_passes_is_what_boots",
        ),
    ),
    Rule(
        "D9",
        "The variables may vanish: names of what is unconfirmed keep their counters",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D9_all_loader_variables_deleted_in_each_state",
            "test_device_D9_a_trial_survives_the_loss",
        )
        + _of(
            _UEFI_UPDATE,
            "test_lost_variables_leave_the_names_and_the_trial_goes_on",
        ),
    ),
    Rule(
        "D10",
        "A slot's entry is removed before the slot's first byte is written",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D10_no_entry_of_a_slot_that_is_written",
        )
        + _of(
            _RESULT,
            "test_every_cut_leaves_a_bootable_verified_truthful_disk",
        )
        + _of(
            _CONTRACT,
            "test_B9_what_is_being_written_cannot_boot",
        ),
    ),
    Rule(
        "D11",
        "Temporary files outside of `EFI/Linux`; mounted only while it is written; room for three images is seen first; what cuts leave is removed",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D11_esp_full_is_told_before_anything_is_touched",
            "test_device_D11_esp_full_while_placing",
            "test_device_D11_esp_full_while_confirming",
            "test_device_D11_what_cuts_leave_is_removed",
            "test_device_D11_esp_after_100_cuts",
            "test_device_D11_mounted_only_while_in_use",
        )
        + _of(
            "tests/bench/test_esp_cuts.py",
            "test_D11_the_partition_is_tidy_after_100_cuts",
        ),
    ),
    Rule(
        "D12",
        "Loaders differ by version: `state` tells which one runs, and known ones are tested",
        _of(
            _SYSTEMD_BOOT,
            "test_device_D12_state_tells_the_loader",
        ),
        lacks="one version is booted, 252 of Debian 12",
    ),
    Rule(
        "D13",
        "In a unified kernel image `.linux` stands last, addresses follow from the stub, `.cmdline` ends in NUL",
        _of(
            _DESK,
            "test_D13_a_signed_uki",
            "test_sections_as_objcopy_sees_them",
        ),
    ),
    Rule(
        "D14",
        "A signature has the time it was made at: the digest of the unsigned file is recorded as well",
        _of(
            _DESK,
            "test_D14_the_unsigned_file_is_reproducible",
        ),
    ),
    Rule(
        "D15",
        "Whatever decides about the root stands in the signed command line",
        _of(
            _ARM,
            "test_another_release_below_a_fit_never_becomes_root",
        )
        + _of(
            _ARM_STORE,
            "test_variables_written_by_hand_have_no_effect",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_slot_that_does_not_answer_to_the_root_hash_never_runs",
        )
        + _of(
            "tests/unit/core/test_bootable.py",
            "test_c_11_a_boot_file_that_is_not_for_this_root",
        )
        + _of(
            "tests/unit/core/test_fdt.py",
            "test_c_11_boot_arguments_that_could_be_others",
        ),
    ),
    Rule(
        "D16",
        "A verity tree over one data block has no hash block",
        _of(
            _VERITY,
            "test_D16_sizes_of_trees",
            "test_D16_one_block_is_its_own_root",
        )
        + _of(
            _DESK,
            "test_D16_the_tree_of_veritysetup",
        ),
    ),
    Rule(
        "D17",
        "The first block proves nothing about the rest: the slot is read back whole before it is armed, and the trial reads the whole verity device",
        _of(
            _ARM_UPDATE,
            "test_a_block_that_changes_behind_the_agents_back_is_never_confirmed",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_wrong_block_further_in_panics_and_is_never_confirmed",
        )
        + _of(
            "tests/unit/agent/contracts/test_installer.py",
            "test_W8_a_lying_write_is_found",
        ),
    ),
    Rule(
        "D18",
        "A confirmed slot that rots panics at each start, and nothing counts",
        _of(
            _UEFI_UPDATE,
            "test_a_confirmed_slot_that_rots_panics_at_every_start",
        ),
        lacks="that it is so is shown, not a cure: nothing counts failed starts of a confirmed root yet; what would is an open decision",
    ),
    Rule(
        "D19",
        "Lines of verity in the kernel's log while slots are probed are normal",
        _of(
            _UEFI_UPDATE,
            "test_a_device_updates_itself",
        ),
    ),
    Rule(
        "D20",
        "`fw_setenv -f` only where a board is provisioned: a lost environment is an error, no silent default",
        _of(
            _UBOOT,
            "test_D20_both_copies_torn_is_device_boot",
            "test_provisioning_as_the_guide_says",
        )
        + _of(
            _ARM_STORE,
            "test_both_copies_torn_start_home_and_the_agent_says_so",
        ),
    ),
    Rule(
        "D21",
        "One call of `fw_setenv -s` per step",
        _of(
            _UBOOT,
            "test_D21_a_step_is_one_write_and_one_fsync",
            "test_D21_a_step_changes_one_copy_and_keeps_the_rest",
        )
        + _of(
            _ENVIRONMENTS,
            "test_every_cut_starts_what_may_start",
        ),
    ),
    Rule(
        "D22",
        "The environment compiled into U-Boot starts home",
        _of(
            _ARM_STORE,
            "test_both_copies_torn_start_home_and_the_agent_says_so",
            "test_what_is_compiled_in_ends_every_failure_in_a_reset",
        )
        + _of(
            _CONTRACT,
            "test_B8_a_lost_store_boots_home",
        ),
    ),
    Rule(
        "D23",
        "`bootlimit`, `altbootcmd`, `reset` at the end of `bootcmd`, `upgrade_available` are looked at before the first update",
        _of(
            _UBOOT,
            "test_D23_what_the_loader_lacks_is_seen_before_the_first_update",
            "test_ways_to_end_in_reset",
        )
        + _of(
            _ARM_STORE,
            "test_what_is_compiled_in_ends_every_failure_in_a_reset",
        )
        + _of(
            "tests/integration/test_agent_loaders.py",
            "test_D23_a_loader_that_lacks_something_fails_the_check_of_the_configuration",
        ),
    ),
    Rule(
        "D24",
        "Debian's U-Boot neither counts nor saves: our own build",
        _of(
            _ARM_STORE,
            "test_the_prebuilt_u_boot_is_refused_for_counting",
            "test_an_option_that_did_not_take_effect_is_told",
        ),
    ),
    Rule(
        "D25",
        "Signatures of a FIT are on configurations, the key in the control tree is required, and the tree is of the same machine",
        _of(
            _DESK,
            "test_D25_images_swapped_between_two_signed_configurations",
        )
        + _of(
            _ARM,
            "test_a_refused_fit_costs_its_attempts_and_home_starts",
            "test_two_signed_configurations_in_one_fit_start",
        )
        + _of(
            _ARM_STORE,
            "test_a_control_tree_requires_the_key_for_configurations",
        ),
    ),
    Rule(
        "D26",
        "`grubenv` is written in place, in its first sector, never truncated; the script has defaults",
        _of(
            _GRUB,
            "test_device_D26_grub_decides_as_the_simulated_loader_does",
        )
        + _of(
            _ENVIRONMENTS,
            "test_every_cut_starts_what_may_start",
        ),
    ),
    Rule(
        "D27",
        "A trial ends by watchdog",
        _of(
            _WATCHDOG,
            "test_d27_who_is_silent_is_not_fed_for",
            "test_d27_a_trial_is_not_fed_for_beyond_its_deadline",
            "test_d27_a_child_that_hangs_is_not_fed_for_and_killed_in_the_end",
        )
        + _of(
            _HANG,
            "test_d27_d06_an_agent_that_hangs_in_its_trial_is_reset_and_home_comes_back",
        )
        + _of(
            _UNITS,
            "test_d27_systemd_kills_an_agent_that_hangs_in_its_trial",
            "test_d06_an_agent_that_is_missing_in_its_trial_is_ended_by_the_timer",
        )
        + _of(
            "tests/bench/test_watchdog_device.py",
            "test_d27_a_kernel_resets_a_machine_whose_agent_shows_no_life",
        )
        + _of(
            _UEFI_UPDATE,
            "test_an_agent_that_hangs_is_reset_by_the_watchdog",
        ),
        lacks="a watchdog in hardware, which alone ends a kernel that hangs: `softdog` is part of the kernel",
    ),
    Rule(
        "D28",
        "The floor rises last; a TPM's counter needs a base; small steps",
        _of(
            _TPM,
            "test_d28_a_cut_before_the_step_is_made_good",
            "test_d28_a_new_counter_begins_at_zero_whatever_the_tpm_counted",
            "test_d28_steps_are_small",
            "test_d28_a_counter_made_anew_is_noticed",
        )
        + _of(
            "tests/simulation/test_powercut.py",
            "test_D05_the_floor_rises_last",
        ),
    ),
    Rule(
        "D29",
        "Objects in a TPM are flushed, or the kernel's resource manager is used",
        _of(
            _TPM,
            "test_d29_ten_signatures_ten_processes",
            "test_d29_contexts_of_others_are_flushed",
        ),
    ),
    Rule(
        "D30",
        "`swtpm --daemon` leaves its directory: its state has an absolute path",
        _of(
            _TPM,
            "test_d30_the_tpm_keeps_what_it_has_over_a_restart",
        ),
    ),
    Rule(
        "D31",
        "Nothing is sealed to PCR 4, 9 or 11: each update changes them",
        _of(
            _TPM,
            "test_d31_an_update_does_not_lock_the_device_out",
            "test_d31_other_pcrs_are_refused_with_the_reason",
            "test_d31_another_secure_boot_policy_locks_the_store",
        ),
    ),
    Rule(
        "D32",
        "Tokens: P-256 or P-384, a label where there are several, the PIN at each signature",
        _of(
            _KEYS,
            "test_d32_two_tokens_wrong_pin_wrong_id",
            "test_d32_addresses_without_what_they_need",
            "test_d32_a_p384_key_signs_no_report",
        ),
    ),
    Rule(
        "D33",
        "`imgtool verify` without a key accepts any signer; SMP's two digests are two things",
        _of(
            _DESK,
            "test_D33_an_image_for_mcuboot",
        ),
    ),
    Rule(
        "D34",
        "Snapshots want qcow2 for disk and variables, cuts want raw and a cold start; never mixed",
        _of(
            _QEMU,
            "test_D34_snapshots_want_qcow2_everywhere",
            "test_D34_cuts_want_raw_everywhere",
        )
        + _of(
            _CUTS,
            "test_D34_neither_kills_nor_moments_under_qcow2",
        ),
    ),
    Rule(
        "D35",
        "Always TCG: KVM inside of a virtual machine proves nothing",
        _of(
            _QEMU,
            "test_D35_another_accelerator_is_refused",
            "test_D35_the_machine_says_itself_that_it_is_emulated",
        ),
    ),
    Rule(
        "D36",
        "A log and the images it is judged by are made in one run",
        _of(
            _CUTS,
            "test_D36_the_base_is_the_one_the_log_was_made_on",
        ),
    ),
    Rule(
        "D37",
        "Images are reproducible",
        _of(
            _DESK,
            "test_D37_the_same_input_is_the_same_image",
            "test_D37_enrolment_is_reproducible",
        )
        + _of(
            "tests/bench/test_package.py",
            "test_d37_the_same_tree_makes_the_same_package",
        )
        + _of(
            _QEMU,
            "test_D37_the_same_root_is_the_same_image",
            "test_D37_the_same_initramfs_is_the_same_archive",
        ),
    ),
    Rule(
        "D38",
        "A guest reaches the test server and nothing else",
        _of(
            _ARM_UPDATE,
            "test_the_whole_way_of_updates",
        )
        + _of(
            _UEFI_UPDATE,
            "test_a_device_updates_itself",
        ),
    ),
)


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(rule) for rule in RULES)


def _row(rule: Rule) -> str:
    held = [f"`{name.removeprefix('tests/')}`" for name in rule.tests]
    if rule.lacks:
        held.append(f"† {rule.lacks}")
    return f"| {rule.id} | {rule.asks} | {'<br>'.join(held)} |\n"


def faults() -> Iterator[str]:
    """Everything in the list that is not so."""
    wanted = [f"D{number}" for number in range(1, LAST + 1)]
    if (found := [rule.id for rule in RULES]) != wanted:
        yield f"the list is {found}"
    for rule in RULES:
        if not rule.tests and not rule.lacks:
            yield f"{rule.id}: neither a test nor a reason"
        if "|" in rule.asks + rule.lacks:
            yield f"{rule.id}: a bar breaks the table"
        for test in rule.tests:
            file, _, name = test.partition("::")
            if name not in _tests_in(ROOT / file):
                yield f"{rule.id}: there is no {test}"


@functools.cache
def _tests_in(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text("utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    )


def main() -> int:
    """Write the page; what is not so is told, and 1."""
    PAGE.write_text(page(), "utf-8")
    found = list(faults())
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
