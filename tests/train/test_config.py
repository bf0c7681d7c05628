import re
from pathlib import Path

import pytest

from rubert_lite.errors import ConfigError
from train.__main__ import main
from train.compared import CompareConfig
from train.config import load_config
from train.evaluated import EvaluationConfig
from train.line import STAGES
from train.section import load_section
from train.sentence_config import TaskSourceConfig

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
        ("tail = true\nalignment = 'match'", "all pieces of the student are shared"),
        ("tail = true\nalignment = 'reduce-map'", "it compares all classes"),
        ("span = 1.0\nmask_exponent = 0.7", "words are masked then"),
        ("contrastive = 1.0\nnegatives = 0", "nothing to be told from"),
    ],
)
def test_places_are_compared_where_there_are_any(tmp_path, distil, message):
    text = BASE + f"[teacher]\npath = 'x'\n[distil]\n{distil}\n"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


TASK = """
[finetune]
name = "a"
train = "a"
dev = "a"
license = "CC0"
"""


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ('task = "token-classification"\nbalance = true', "balance is of classification, not of"),
        ('task = "token-classification"\nlabels = { a = "b" }', "labels is of classification"),
        ('task = "question-answering"\npair = "b"', "pair is of classification"),
        ('task = "question-answering"\nsoft = "x"', "soft: not for question-answering"),
        ('task = "token-classification"\nmetric = "macro_f1"', "has f1, precision, recall"),
        ('unlabelled = "x"\nunlabelled_license = "CC0"', "without finetune.soft, a teacher that"),
        ('unlabelled = "x"\nsoft = "y"', "unlabelled_license are given together or not at all"),
        ('metric = "f2"', "classification has accuracy, macro_f1, weighted_f1, mcc"),
    ],
)
def test_settings_that_a_task_does_not_read_are_refused(tmp_path, task, message):
    text = BASE + f"[distil]\nalignment = 'none'\n{TASK}"
    assert load(tmp_path, text).finetune is not None
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text + task)


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
    weighed = "[sentence]\nlabels = 0.0\naxes = { grades = 0.1 }\n"
    path.write_text(f'base = "{base}"\n{weighed}{task}', encoding="utf-8")
    sentence = load_config(path).sentence
    assert sentence and sentence.axes and not sentence.grades
    path.write_text(f'base = "{base}"\n{weighed.replace("0.1", "0.0")}{task}', encoding="utf-8")
    with pytest.raises(ConfigError, match="grades \\(a weight\\) and tasks with a pair"):
        load_config(path)


def test_a_learnt_map_is_written_with_the_sorting(tmp_path):
    path = tmp_path / "line.toml"
    base = ROOT / "distil-16k-long-mix.toml"
    path.write_text(f'base = "{base}"\n[sentence]\nsort_dimensions = false\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="sentence.axes.*set sort_dimensions"):
        load_config(path)


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
