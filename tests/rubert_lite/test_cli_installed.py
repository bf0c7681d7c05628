"""Commands that other installed packages bring."""

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from rubert_lite.cli import main


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Pretend that a package brings a command."""

    def install(name: str, target: object) -> None:
        class Command:
            def load(self) -> object:
                if isinstance(target, BaseException):
                    raise target
                return target

        command = Command()
        command.name = name  # type: ignore[attr-defined]
        monkeypatch.setattr(
            "rubert_lite.cli.entry_points",
            lambda *, group: [command] if group == "rubert_lite.commands" else [],
        )

    assert EntryPoint.load  # what it stands in for
    return install


def test_installed_command_gets_its_arguments(
    installed: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[list[str]] = []

    def command(argv: list[str] | None) -> int:
        given.append(argv or [])
        return 7

    installed("train", command)
    assert main(["train", "all", "--config", "x"]) == 7
    assert given == [["all", "--config", "x"]]
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "installed commands: train" in capsys.readouterr().out


def test_command_without_its_extra_names_it(
    installed: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    installed("train", ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert main(["train"]) == 1
    told = "torch is not installed: install rubert_lite with its extra: pip install -e '.[train]'"
    assert told in capsys.readouterr().err

    def late(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    installed("train", late)  # imported when the command runs
    assert main(["train"]) == 1
    assert "torch is not installed" in capsys.readouterr().err
    installed("train", ModuleNotFoundError("No module", name="rubert_lite.typo"))
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


def test_installed_command_has_its_log_to_itself(installed: Callable[[str, object], None]) -> None:
    def command(argv: list[str]) -> int:
        return len(logging.getLogger("rubert_lite").handlers)

    installed("serve", command)
    assert main(["serve"]) == 0  # else each line would be written twice
