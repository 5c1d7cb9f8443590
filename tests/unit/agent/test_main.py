"""The faces of the agent on a terminal: usage, errors, output, the example unit."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sealift.agent import show, surroundings, wiring
from sealift.agent.__main__ import main
from sealift.agent.runtime import read
from sealift.agent.settings import example
from sealift.core.errors import BootError, RollbackError

ROOT = Path(__file__).resolve().parents[3]


def test_agent_knows_its_version() -> None:
    """What reports call the agent is the distribution that is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"sealift-agent {project['version']}" == wiring.AGENT


@pytest.mark.parametrize("words", [[], ["dance"], ["run", "--fast"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    """The usage says what is wrong; nothing is done."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_missing_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the code, status 2."""
    assert main(["status", "--config", "/nowhere/agent.toml"]) == 2
    assert "[config.invalid]" in capsys.readouterr().err


def test_manual_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` and the manual know the same commands."""
    with pytest.raises(SystemExit):
        main(["--help"])
    manual = (ROOT / "docs/agent.md").read_text()
    shown = capsys.readouterr().out
    for name in ("run", "check", "status", "history", "config-check", "keys"):
        assert f"| `{name}`" in manual or f"| `{name} " in manual
        assert name in shown


def test_idle_agent_loads_no_cryptography() -> None:
    """What the polling parent imports is the standard library and ourselves (D-12)."""
    code = (
        "import sys, sealift.agent.__main__, sealift.agent.service\n"
        "from sealift.agent import config, settings, wiring\n"
        "config.parse(settings.example().encode(), '/etc/a.toml')\n"
        "print('\\n'.join(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    roots = {name.split(".")[0] for name in found}
    foreign = roots - set(sys.stdlib_module_names) - {"sealift", "__main__"}
    # What a .pth file of the environment brings in is not the agent's.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert foreign - {name.split(".")[0] for name in bare} == set()
    for heavy in ("logging", "asyncio", "pathlib", "subprocess", "ctypes"):
        assert heavy not in roots
    assert "sealift.agent.install.ab" not in found


def test_errors_have_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, an object for programs; control characters as escapes."""
    error = RollbackError("old\x1b[2J\nfake", hint="look")
    show.error(error, as_json=False)
    assert capsys.readouterr().err == (
        "error: old\\x1b[2J\\nfake [metadata.rollback]\nhint: look\n"
    )
    show.error(error, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["error"]["code"] == "metadata.rollback"


def test_tables_and_facts_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A release name cannot draw a second row."""
    show.table(["name", "ok"], [["a\nb", True], [None, False]])
    show.facts({"deep": {"list": ["x\ty", {"more": 1}]}, "none": None})
    out = capsys.readouterr().out
    assert "a\\nb  yes" in out
    assert "list: x\\ty" in out


@pytest.mark.parametrize(
    ("name", "dangerous"),
    [
        ("PYTHONPATH", True),
        ("PYTHONHOME", True),
        ("LD_PRELOAD", True),
        ("GLIBC_TUNABLES", True),
        ("HOME", False),
        ("HTTPS_PROXY", False),
    ],
)
def test_d12_variables_that_run_code(name: str, dangerous: bool) -> None:
    """Those make the agent start itself again; the others are just dropped."""
    assert surroundings._runs_code(name) is dangerous


def test_restart_by_exit_and_by_program() -> None:
    """Status 75, or the program; one that fails is `device.boot`."""
    with pytest.raises(SystemExit) as caught:
        wiring.restart(())
    assert caught.value.code == 75
    wiring.restart(("/bin/true",))
    for argv in (("/bin/false",), ("/nowhere/reboot",)):
        with pytest.raises(BootError):
            wiring.restart(argv)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_runtime_file_of_nobody(tmp_path: Path, text: str) -> None:
    """A foreign, damaged or stale runtime file says that no agent runs."""
    from sealift.agent.config import parse

    config = parse(
        example().replace("/run/sealift/agent.json", str(tmp_path / "r")).encode(),
        str(tmp_path / "agent.toml"),
    )
    (tmp_path / "r").write_text(text)
    assert read(config) is None
