"""Names, directories and hub ids."""

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rubert_lite import InputError, ModelNotFound, PackageError, available_models, load
from rubert_lite.locate import locate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty $RUBERT_LITE_HOME, and no shipped models."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("RUBERT_LITE_HOME", str(folder))
    monkeypatch.setattr("rubert_lite.locate.shipped_folder", lambda: tmp_path / "shipped")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Put a hub in place that has nothing; return what it was asked for."""
    asked: list[tuple[str, str | None]] = []

    class HfHubHTTPError(OSError):
        pass

    class HFValidationError(ValueError):
        pass

    def snapshot_download(
        repository: str, *, revision: str | None, allow_patterns: list[str]
    ) -> str:
        asked.append((repository, revision))
        assert allow_patterns == ["manifest.json"]
        if repository == "half/name":  # as httpx's errors, which are no OSErrors
            raise RuntimeError("the server hung up")
        if repository == "bad/name":
            raise HFValidationError("bad")
        raise HfHubHTTPError("404")

    module = types.ModuleType("huggingface_hub")
    errors = types.ModuleType("huggingface_hub.errors")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    errors.HfHubHTTPError = HfHubHTTPError  # type: ignore[attr-defined]
    errors.HFValidationError = HFValidationError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_installed_model_is_found_by_name(home: Path, make_package: Any) -> None:
    make_package("home/tiny-1.5k_a")
    assert available_models() == {"tiny-1.5k_a": home / "tiny-1.5k_a"}
    assert locate("tiny-1.5k_a") == home / "tiny-1.5k_a"
    assert load("tiny-1.5k_a").encode(["мир"]).shape == (1, 8)


def test_shipped_model_goes_before_installed_and_both_before_a_directory(
    home: Path, make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_package("tiny")
    assert locate("tiny") == Path("tiny")
    make_package("home/tiny")
    assert locate("tiny") == home / "tiny"
    assert locate("./tiny") == Path("tiny")
    assert locate(Path("tiny")) == Path("tiny")
    make_package("shipped/tiny")
    assert locate("tiny") == tmp_path / "shipped" / "tiny"
    assert list(available_models()) == ["tiny"]


def test_only_plain_names_are_names(home: Path, make_package: Any) -> None:
    for name in ("-tiny", ".tiny", "a\nb"):
        make_package(f"home/{name}")
    make_package("outside")
    (home / "empty").mkdir()
    assert available_models() == {}
    for name in ("Tiny", "../outside", "empty", "a/../../outside", ""):
        with pytest.raises(ModelNotFound):
            locate(name)


def test_unknown_name_says_what_was_tried(home: Path, make_package: Any) -> None:
    with pytest.raises(ModelNotFound, match="none is installed; a directory"):
        locate("nothing")
    make_package("home/tiny")
    with pytest.raises(ModelNotFound, match="nothing: no such model; .*that name: tiny"):
        locate("nothing")


@pytest.mark.parametrize("name", ["~nobody-lives-here/tiny", "a" * 5000, "a\0b"])
def test_impossible_path_is_no_model(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="no such model") as caught:
        locate(name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [None, 3, b"tiny", ["tiny"]])
def test_what_is_no_name_at_all(name: Any) -> None:
    with pytest.raises(InputError, match=r"model: \w+, expected a name, directory or hub id"):
        load(name)


def test_file_is_no_model(home: Path, make_package: Any) -> None:
    with pytest.raises(ModelNotFound, match="a file, expected the directory"):
        locate(make_package() / "manifest.json")


def test_hub_id_and_revision(home: Path, hub: list[tuple[str, str | None]]) -> None:
    for name in ("owner/name", "owner/name@v1.0", "bad/name", "half/name"):
        with pytest.raises(ModelNotFound, match=r"tried .*; the hub: \w+Error"):
            locate(name)
    asked = [("owner/name", None), ("owner/name", "v1.0"), ("bad/name", None), ("half/name", None)]
    assert hub == asked


def test_of_a_hub_only_what_a_package_names_is_fetched(
    home: Path, make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, commit = make_package("made"), "0f" * 20
    asked: list[tuple[str | None, list[str]]] = []

    def snapshot_download(
        repository: str, *, revision: str | None, allow_patterns: list[str]
    ) -> str:
        asked.append((revision, allow_patterns))
        folder = tmp_path / repository / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if repository == "owner/name":
                shutil.copyfile(package / name, folder / name)
        return str(folder)

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    assert load("owner/name@main").encode(["мир"]).shape == (1, 8)
    files = ["manifest.json", "fast.fp32.onnx", "tokenizer.json"]
    assert asked == [("main", ["manifest.json"]), (commit, files)]
    asked.clear()
    with pytest.raises(PackageError, match=r"no manifest\.json: not a model package"):
        load("other/model")
    assert asked == [(None, ["manifest.json"])]


def test_names_are_of_any_letters_and_a_missing_home_is_told(
    home: Path, make_package: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    make_package("home/Модель-1")
    make_package("home/.hidden")
    assert list(available_models()) == ["Модель-1"]
    monkeypatch.setenv("RUBERT_LITE_HOME", str(home / "nowhere"))
    assert available_models() == {}
    assert "no such directory: models there are not seen" in caplog.text
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("RUBERT_LITE_HOME", "~/home")
    assert list(available_models()) == ["Модель-1"]


@pytest.mark.parametrize(
    "name", ["./a/b", "a/b/c", "/a/b", "a/..", "../a", "a//b", "a/b@", "a b/c", "http://a/b", "á/b"]
)
def test_what_is_no_hub_id_is_not_asked_for(
    home: Path, hub: list[tuple[str, str | None]], name: str
) -> None:
    with pytest.raises(ModelNotFound):
        locate(name)
    assert hub == []


def test_path_is_never_asked_for(home: Path, hub: list[tuple[str, str | None]]) -> None:
    with pytest.raises(ModelNotFound):
        locate(Path("owner/name"))
    assert hub == []


def test_existing_directory_goes_before_the_hub(
    home: Path,
    hub: list[tuple[str, str | None]],
    make_package: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_package("owner/name")
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name") == Path("owner/name")
    assert hub == []


def test_without_huggingface_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFound, match="pip install huggingface_hub"):
        locate("owner/name")


def test_offline_the_cache_of_the_hub_is_used(make_package: Any, tmp_path: Path) -> None:
    revision = "0f" * 20
    snapshot = make_package(f"hub/models--owner--name/snapshots/{revision}")
    repository = snapshot.parents[1]
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    (repository / "blobs").mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    code = (
        "import sys; from rubert_lite import ModelNotFound, load\n"
        "print(load('owner/name').encode(['мир']).shape)\n"
        "try: load('owner/other')\n"
        "except ModelNotFound as error: print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("(1, 8)\nowner/other: no such model; tried"), done.stderr
