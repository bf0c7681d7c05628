"""Stages: made once, whole, and told when they differ."""

from pathlib import Path

import pytest

from rubert_lite.errors import ConfigError
from train.folders import fingerprint_source
from train.stage import Stage, fingerprint_files, fingerprint_stage, run_stage


def test_a_stage_is_made_once_and_told_when_it_differs(tmp_path):
    made = []

    def work(out: Path) -> None:
        made.append(out)
        (out / "result").write_text("x")

    folder = tmp_path / "01-x"
    stage = Stage(folder, {"size": 1}, {"corpus": "abc"})
    assert run_stage(stage, work) and not run_stage(stage, work)
    assert len(made) == 1 and (folder / "result").is_file()
    other = Stage(folder, {"size": 2}, {"corpus": "abd"})
    with pytest.raises(ConfigError) as error:
        run_stage(other, work)
    assert "settings size: made with 1, now 2" in str(error.value)
    assert "inputs corpus: made with 'abc', now 'abd'" in str(error.value)
    assert "--force" in str(error.value)
    before = fingerprint_stage(folder)
    assert run_stage(other, work, force=True)
    assert fingerprint_stage(folder) != before


def test_a_folder_older_than_a_setting_was_made_with_its_default(tmp_path):
    def work(out):
        (out / "x").touch()

    def stage(**later):
        settings = {"distil": {"steps": 1, **later}}
        return Stage(tmp_path / "04-x", settings, {}, defaults={"distil": {"steps": 9, "span": 0}})

    assert run_stage(stage(), work)
    assert not run_stage(stage(span=0), work)
    with pytest.raises(ConfigError, match="distil: made with .*'span': 0.*, now .*'span': 1"):
        run_stage(stage(span=1), work)


def test_a_stage_that_failed_leaves_nothing_under_its_name(tmp_path):
    stage = Stage(tmp_path / "01-x", {}, {})

    def fail(out: Path) -> None:
        (out / "half").write_text("x")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        run_stage(stage, fail)
    assert not (tmp_path / "01-x").exists()
    seen: list[bool] = []
    run_stage(stage, lambda out: seen.append((out / "half").exists()))
    assert seen == [False]  # what failed is thrown away, unless the stage is resumable


def test_a_resumable_stage_goes_on_with_equal_settings_only(tmp_path):
    def fail(out: Path) -> None:
        (out / "half").write_text("x")
        raise RuntimeError("killed")

    for size, kept in ((1, True), (2, False)):
        with pytest.raises(RuntimeError):
            run_stage(Stage(tmp_path / f"04-{size}", {"size": 1}, {}, resumable=True), fail)
        seen: list[bool] = []
        stage = Stage(tmp_path / f"04-{size}", {"size": size}, {}, resumable=True)
        run_stage(stage, lambda out, seen=seen: seen.append((out / "half").exists()), force=True)
        assert seen == [kept]


def test_what_was_trained_is_not_thrown_away_for_another_setting(tmp_path):
    def fail(out: Path) -> None:
        (out / "state" / "step-1").mkdir(parents=True)
        raise RuntimeError("killed")

    def stage(size: int) -> Stage:
        return Stage(tmp_path / "04-x", {"size": size}, {}, resumable=True)

    with pytest.raises(RuntimeError):
        run_stage(stage(1), fail)
    with pytest.raises(ConfigError, match=r"\.04-x\.partial: settings size: made with 1, now 2"):
        run_stage(stage(2), lambda out: None)
    found: list[bool] = []
    run_stage(stage(1), lambda out: found.append((out / "state" / "step-1").is_dir()))
    assert found == [True]
    assert {p.name for p in (tmp_path / "04-x").iterdir()} == {"stage.json"}


@pytest.mark.parametrize("left", ["state", "stage.json", "former"])
def test_a_kill_at_the_end_of_a_stage_costs_nothing(tmp_path, monkeypatch, left):
    """Killed as the finished folder is put in its place, or right before."""
    folder = tmp_path / "04-x"
    stage = Stage(folder, {"size": 1}, {}, resumable=True)
    trained: list[int] = []

    def work(out: Path) -> None:
        state = out / "state" / "step-1"
        if not state.is_dir():
            trained.append(1)
            state.mkdir(parents=True)
        (out / "model").write_text("x")

    class Killed(BaseException):
        pass

    def rename(path: Path, target: Path) -> None:
        if left == "former" and path == folder:
            plain(path, target)  # the old one is aside, the new one is not yet there
        raise Killed

    if left == "former":
        run_stage(Stage(folder, {"size": 0}, {}), lambda out: None)
    plain = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if left == "state":
            patch.setattr("train.stage.write_whole", lambda path, data: kill_last(path, data))

        def kill_last(path: Path, data: bytes) -> None:
            if path.name == "stage.json":
                raise Killed
            path.write_bytes(data)

        with pytest.raises(Killed):
            run_stage(stage, work, force=True)
    assert run_stage(stage, work, force=True) and trained == [1]
    assert {p.name for p in folder.iterdir()} == {"model", "stage.json"}
    assert not run_stage(stage, work)


def test_labels_and_weights_are_known_by_all_their_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    data = bytearray(5 << 20)
    path.write_bytes(data)
    first = fingerprint_source(str(tmp_path)), fingerprint_files([str(path)])
    data[2_500_000] = 1
    path.write_bytes(data)
    assert fingerprint_source(str(tmp_path)) != first[0]
    assert fingerprint_files([str(path)]) == first[1]  # of corpora, the ends
    small = tmp_path / "labels"
    small.write_bytes(data[: 3 << 19])
    assert fingerprint_files([str(small)]) == fingerprint_files([str(small)], whole=True)
    assert fingerprint_source("owner/name", "v1") != fingerprint_source("owner/name")


def test_stages_out_of_order_name_the_missing_command(tmp_path):
    with pytest.raises(ConfigError, match="rubert-lite train corpus"):
        fingerprint_stage(tmp_path / "01-corpus")
