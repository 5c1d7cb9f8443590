"""The program: groups loaded when named, errors in one form, exit status by family."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from sealift.cli import main as program
from sealift.cli.main import GROUPS, main
from sealift.core.errors import RefusedError, SealiftError, SignatureError


def run_fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_help_loads_no_package_of_ours_but_cli() -> None:
    """Neither typer, rich nor any of our packages, so that it answers at once."""
    code = (
        "import sys; from sealift.cli.main import main; main(['--help']); "
        "print(sorted(m for m in sys.modules if m.startswith(('sealift', 'typer', "
        "'rich', 'tuf', 'cryptography'))))"
    )
    loaded = run_fresh(code).splitlines()[-1]
    assert loaded == str(["sealift", "sealift.cli", "sealift.cli.main"])


def test_help_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of groups is what the help prints."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in GROUPS)


def test_every_group_has_its_module() -> None:
    """A name in the table is a module with an `app`."""
    source = Path(program.__file__).parent
    assert [n for n in GROUPS if not (source / f"{n}.py").is_file()] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution's version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sealift ")


def test_an_unknown_group_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names there are, and what was typed as data."""
    assert main(["\x1b[31mrelase"]) == 2
    text = capsys.readouterr().err
    assert "[config.invalid]" in text
    assert "release" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_every_group_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each group ends with 0 and prints its commands or options."""
    pytest.importorskip(f"sealift.cli.{name}")
    assert main([name, "--help"]) == 0
    assert "Usage: sealift" in capsys.readouterr().out


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    def act(as_json: bool = typer.Option(False, "--json")) -> None:
        raise error

    return app


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Callable[[typer.Typer], None]:
    """Put an application in the place of `sealift demo`."""

    def put(app: typer.Typer) -> None:
        module = type(sys)("sealift.cli.demo")
        vars(module)["app"] = app
        monkeypatch.setitem(sys.modules, "sealift.cli.demo", module)

    return put


# the error → exit status, code
ERRORS: list[tuple[Exception, int, str]] = [
    (SignatureError("two are missing", hint="ask"), 3, "metadata.signature"),
    (RefusedError("no"), 6, "policy.refused"),
    (OSError(28, "No space left on device", "file"), 2, "config.invalid"),
    (RuntimeError("what"), 1, "error"),
    (typer.BadParameter("wrong"), 2, "config.invalid"),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=str)
def test_errors_are_text_and_status(
    error: Exception,
    status: int,
    code: str,
    group: Callable[[typer.Typer], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Message, code and hint on standard error, nothing on standard output."""
    group(raising(error))
    assert main(["demo"]) == status
    printed = capsys.readouterr()
    assert f"[{code}]" in printed.err
    assert printed.err.startswith("error: ")
    assert (printed.out, "Traceback" in printed.err) == ("", False)


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=str)
def test_errors_are_json_when_asked(
    error: Exception,
    status: int,
    code: str,
    group: Callable[[typer.Typer], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One object on standard output."""
    group(raising(error))
    assert main(["demo", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()], ids=repr)
def test_an_interrupt_is_130(
    error: BaseException, group: Callable[[typer.Typer], None]
) -> None:
    """As a shell expects it."""
    group(raising(error))
    assert main(["demo"]) == 130


def test_a_status_of_its_own(group: Callable[[typer.Typer], None]) -> None:
    """A command may end with a status, as the drill does."""
    group(raising(typer.Exit(8)))
    assert main(["demo"]) == 8


def test_a_missing_extra_is_named(
    group: Callable[[typer.Typer], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What to install, whether the group or a command found it missing."""
    group(raising(ModuleNotFoundError("No module named 'starlette'", name="starlette")))
    assert main(["demo"]) == 2
    text = capsys.readouterr().err
    assert "starlette" in text
    assert "pip install 'sealift[sim]'" in text


def test_usage_errors_are_errors_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing option is told with a code."""
    assert main(["init"]) == 2
    assert "[config.invalid]" in capsys.readouterr().err


def test_a_defect_shows_itself_when_asked(
    group: Callable[[typer.Typer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEALIFT_DEBUG brings the traceback a developer wants."""
    monkeypatch.setenv("SEALIFT_DEBUG", "1")
    group(raising(RuntimeError("what")))
    with pytest.raises(RuntimeError):
        main(["demo"])


def test_hostile_texts_in_errors_are_data(
    group: Callable[[typer.Typer], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """No terminal obeys what came from outside."""
    group(raising(SealiftError("a\x1b[2Jb\nhint: lie")))
    main(["demo"])
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert text.count("\n") == 1


def test_extras_in_the_table_exist() -> None:
    """What the hint names can be installed."""
    import tomllib

    root = Path(__file__).resolve().parents[3]
    found: Any = tomllib.loads((root / "pyproject.toml").read_text())
    extras = set(found["project"]["optional-dependencies"])
    assert {extra for extra, _ in GROUPS.values()} <= extras
    assert import_module("sealift.cli.main") is program
