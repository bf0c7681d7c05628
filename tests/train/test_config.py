import re
from pathlib import Path

import pytest

from rubert_lite.errors import ConfigError
from train.__main__ import main
from train.compared import CompareConfig
from train.config import load_config
from train.evaluate import EvaluationConfig
from train.folders import fingerprint_source
from train.line import STAGES
from train.section import load_section
from train.sentence_config import TaskSourceConfig
from train.stage import Stage, fingerprint_files, fingerprint_stage, run_stage

ROOT = Path(__file__).parents[2] / "train" / "configs"
CONFIGS = sorted(ROOT.rglob("*.toml"))
BASE = '[corpus]\n[[corpus.sources]]\nname = "a"\nfiles = ["a.txt"]\nlicense = "CC0"\n'


def load(tmp_path, text: str, *overrides: str):
    path = tmp_path / "line.toml"
    path.write_text('run = "r"\n' + text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_our_own_configurations_are_fine(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    place = path.relative_to(ROOT)
    found = re.fullmatch(
        rf"# rubert-lite train (\w+)( --until \w+)? --config train/configs/{place}", first
    )
    assert found
    if found[1] == "evaluate":
        load_section(EvaluationConfig, path)
    elif found[1] == "compare":
        load_section(CompareConfig, path)
    else:
        assert found[1] in ("all", *STAGES)
        load_config(path)


def test_all_problems_are_told_at_once(tmp_path):
    text = BASE + "[distil]\nstepz = 5\nlearning_rate = 'fast'\n[student]\nlayers = 2.5\n"
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    problems = "\n".join(error.value.problems)
    assert len(error.value.problems) == 3
    assert "distil.stepz: unknown key; did you mean 'steps'?" in problems
    assert "distil.learning_rate = 'fast'" in problems
    assert "student.layers = 2.5" in problems


def test_contradictions_are_told_together(tmp_path):
    text = BASE + "[distil]\nalignment = 'reduce'\n[student]\nhidden_size = 10\nheads = 4\n"
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert len(error.value.problems) == 2
    assert "needs a teacher" in error.value.problems[0]


@pytest.mark.parametrize(
    ("distil", "message"),
    [
        ("compare = 'masked'\nalignment = 'reduce'", "only match"),
        ("compare = 'masked'\nalignment = 'match'\nmlm = 0.0", "nothing is masked"),
        ("hidden_at = 'words'\nalignment = 'reduce'\nhidden = 1.0", "expected match"),
        ("hidden_at = 'words'\nalignment = 'match'", "without a weight"),
    ],
)
def test_places_are_compared_where_there_are_any(tmp_path, distil, message):
    text = BASE + f"[teacher]\npath = 'x'\n[distil]\n{distil}\n"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("initial_layers = 'measured'\ninitial_rows = 'random'", "nothing tells its parts"),
        ("cut = 'measured'\ninitial_layers = 'average'", "expected 'select' or 'measured'"),
    ],
)
def test_a_start_is_measured_where_there_is_something_to_measure(tmp_path, student, message):
    text = BASE + f"[student]\n{student}\n"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text + "[teacher]\npath = 'x'\n")
    with pytest.raises(ConfigError, match="nothing tells its parts"):
        load(tmp_path, text + "[distil]\nalignment = 'none'\n")


def test_a_task_without_a_pair_is_written_as_before_there_were_pairs():
    task = TaskSourceConfig(name="a", train="a.jsonl", license="MIT")
    assert set(task.model_dump()) == {"name", "train", "license", "text", "label"}
    paired = task.model_copy(update={"pair": "other"})
    assert paired.model_dump()["pair"] == "other"


def test_weights_and_tasks_of_labels_and_grades_belong_together(tmp_path):
    task = '[[sentence.tasks]]\nname = "a"\ntrain = "a.jsonl"\nlicense = "MIT"\npair = "b"\n'
    path = tmp_path / "line.toml"
    base = ROOT / "distil-16k-more.toml"
    path.write_text(f'base = "{base}"\n{task}', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "labels (a weight) and tasks without a pair" in str(error.value)
    assert "grades (a weight) and tasks with a pair" in str(error.value)


def test_only_a_trained_vocabulary_can_be_lower_case(tmp_path):
    text = BASE + "[distil]\nalignment = 'none'\n[vocabulary]\nlowercase = true\nmethod = "
    assert load(tmp_path, text + "'train'\n").vocabulary.lowercase
    with pytest.raises(ConfigError, match="needs vocabulary.method = 'train'"):
        load(tmp_path, text + "'prune'\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "not TOML"),
        ("", "corpus: missing"),
        ("[corpus]\nsources = []\n", "corpus.sources"),
    ],
)
def test_broken_files_are_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_missing_files_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_overrides_are_typed(tmp_path):
    none = 'distil.alignment="none"'
    config = load(tmp_path, BASE, none, "distil.steps=7", "student.layers=4", "run=other")
    assert (config.distil.steps, config.student.layers, config.run) == (7, 4, "other")
    with pytest.raises(ConfigError, match="expected section.key=value"):
        load(tmp_path, BASE, "distil.steps")


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


def test_several_processes_are_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.toml"
    path.write_text('run = "r"\n' + BASE + "[distil]\nalignment = 'none'\n", encoding="utf-8")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["corpus", "--config", str(path)]) == 1
    assert "a stage is made by one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[distil]\nalignment = "reduce"\nmask_teacher = true\n', "only match, match-string"),
        (
            '[distil]\nalignment = "reduce"\n[vocabulary]\nmethod = "train"\nlowercase = true\n',
            "lacks all capitals",
        ),
    ],
)
def test_reduce_with_what_it_cannot_read(tmp_path, text, said):
    path = tmp_path / "x.toml"
    path.write_text('run = "r"\n' + BASE + '[teacher]\npath = "t"\n' + text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_config(path)


def test_stages_out_of_order_name_the_missing_command(tmp_path):
    with pytest.raises(ConfigError, match="rubert-lite train corpus"):
        fingerprint_stage(tmp_path / "01-corpus")


def test_a_configuration_changes_its_base(tmp_path):
    (tmp_path / "base.toml").write_text(
        'run = "r"\n' + BASE + '[vocabulary]\nsize = 100\nmethod = "full"\n'
        "[distil]\nalignment = 'none'\n",
        encoding="utf-8",
    )
    path = tmp_path / "small.toml"
    path.write_text('base = "base.toml"\nrun = "s"\n[vocabulary]\nsize = 50\n', encoding="utf-8")
    config = load_config(path, ["vocabulary.min_char_count=3"])
    assert config.run == "s" and config.corpus.sources[0].name == "a"
    v = config.vocabulary
    assert (v.size, v.method, v.min_char_count) == (50, "full", 3)


@pytest.mark.parametrize(
    ("base", "message"),
    [('"missing.toml"', "missing.toml: no such file"), ("3", "base = 3"), ('"x.toml"', "own base")],
)
def test_a_wrong_base_is_told(tmp_path, base, message):
    path = tmp_path / "x.toml"
    path.write_text(f"base = {base}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_an_empty_table_empties_that_of_the_base(tmp_path):
    below = f"""run = "r"
{BASE}
[distil]
alignment = "none"
[finetune]
name = "a"
train = "a"
dev = "a"
license = "CC0"
[finetune.labels]
x = "y"
"""
    (tmp_path / "below.toml").write_text(below, encoding="utf-8")
    path = tmp_path / "above.toml"
    path.write_text('base = "below.toml"\n[finetune]\nlabels = {}\n', encoding="utf-8")
    found = load_config(path).finetune
    assert found is not None and found.labels == {} and found.name == "a"
