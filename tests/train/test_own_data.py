"""What people bring: their texts, tables, teachers and labels, as they are or told."""

import gzip
import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from rubert_lite.errors import ConfigError, InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec
from train.batches import Texts
from train.config import load_config
from train.corpus import Cleaning, Source, build_corpus, expand
from train.folders import fingerprint_source
from train.held_out import HeldOut
from train.initialise import initialise
from train.links import Links
from train.loading import load_masked_lm
from train.probes import probe
from train.results import detail_table
from train.shards import Shard, align_texts
from train.student import input_rows, output_rows
from train.systems import System, SystemConfig
from train.tables import read_rows
from train.tasks import Task, read_task
from train.tfidf import probe_terms
from train.tokenizer import open_tokenizer, read_tokenizer

from .conftest import wordpiece
from .toy_tasks import encode, write_jsonl


def test_pairs_by_string_stay_pairs_where_a_text_is_cut():
    """A pair that the cut parts must not shift those of the texts behind it."""
    words = ["был", "сад", "кот", "пёс", "стол", "дом", "и"]
    teacher = open_tokenizer(bert_tokenizer_spec([*SPECIAL_PIECES, *words, "##дом"]))
    student = open_tokenizer(bert_tokenizer_spec([*SPECIAL_PIECES, *words, "идом"]))
    texts = ["идом кот сад пёс стол дом и был", "сад был стол"]
    sides = align_texts(texts, teacher, student, max_length=7, strings=True)
    lengths = np.diff(sides[0].starts).astype(np.int32)
    batch = Texts([Shard(sides[0], sides[1])], np.array([0, 2]), lengths).batch(
        [0, 1], strings=True
    )
    left = batch.teacher_ids[batch.teacher_matched & batch.teacher_mask].tolist()
    right = batch.student_ids[batch.student_matched & batch.student_mask].tolist()
    assert [teacher.id_to_token(i) for i in left] == [student.id_to_token(i) for i in right]
    assert len(left) == 10


@pytest.mark.parametrize("whole", [True, False])
def test_a_long_text_that_is_held_out_leaves_no_part(tmp_path, whole):
    long = " ".join(f"Тут слово номер {i}." for i in range(40))  # no sentence of 40 characters
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"text": long}])
    (tmp_path / "a.txt").write_text(f"{long}\nдругое предложение\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    sources = [Source("a", (str(tmp_path / "a.txt"),), "CC0")]
    cleaning = Cleaning(valid_share=0.001, buckets=1, exclude_whole=whole)
    (report,) = build_corpus(sources, out, cleaning=cleaning, exclude=[dev])
    assert report.excluded == whole and ("Тут слово" not in _all(out)) == whole
    assert "другое" in _all(out)


def _all(folder):
    return "".join(p.read_text(encoding="utf-8") for p in folder.glob("*.txt"))


def test_what_should_be_held_out_must_be_readable(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "Гагарин полетел в космос."}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(squad, ensure_ascii=False))
    assert "Гагарин полетел в космос." in HeldOut([str(tmp_path / "dev.json")])
    lines = "".join(f"Предложение {i} {i * 7919 % 9973}\n" for i in range(3000)).encode()
    (tmp_path / "half.txt.gz").write_bytes(gzip.compress(lines)[:9000])
    (tmp_path / "cp1251.tsv").write_bytes(
        "первое\tда\n".encode() + "второе\tнет\n".encode("cp1251")
    )
    (tmp_path / "broken.json").write_text("{")
    for name, message in (
        ("half.txt.gz", "unreadable from here on"),
        ("cp1251.tsv", "cp1251.tsv:2: not UTF-8"),
        ("broken.json", "not JSON"),
    ):
        with pytest.raises(InputError, match=message):
            HeldOut([str(tmp_path / name)])


def test_corpora_keep_texts_that_differ_in_signs(tmp_path):
    """Their finished folders were made so; labelled texts are compared more loosely."""
    (tmp_path / "dev.txt").write_text("Всё ОК!\n")
    held_out = HeldOut([str(tmp_path / "dev.txt")])
    assert "всё ок!" in held_out and "все ок" not in held_out
    assert "все ок" in HeldOut([str(tmp_path / "dev.txt")], loosely=True)


def test_names_of_files_may_hold_brackets(tmp_path):
    (tmp_path / "c[1].txt").write_text("текст\n")
    assert expand([str(tmp_path / "c[1].txt")], "a") == [str(tmp_path / "c[1].txt")]


def test_a_folder_is_known_by_what_lies_below_it(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text("{}")
    plain = fingerprint_source(str(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").write_text('{"mean": true}')
    mean = fingerprint_source(str(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").write_text('{"max": true}')
    assert len({plain, mean, fingerprint_source(str(tmp_path))}) == 3
    (tmp_path / "manifest.json").write_text("{}")  # has the hashes of all files
    package = fingerprint_source(str(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").write_text('{"mean": true}')
    assert fingerprint_source(str(tmp_path)) == package


def test_a_system_is_known_by_its_texts_too(tmp_path):
    (tmp_path / "fit.txt").write_text("один\n")
    config = SystemConfig(name="t", kind="hashed-tfidf", texts=[str(tmp_path / "fit.txt")])
    before = System(config).fingerprint
    (tmp_path / "fit.txt").write_text("два\n")
    assert System(config).fingerprint != before


def test_teachers_tokenizers_get_their_specials(tmp_path, caplog):
    spec = wordpiece("абв", "где")
    token = spec["added_tokens"][0] | {"id": len(spec["model"]["vocab"]), "content": "<url>"}
    changed = spec | {"post_processor": None, "added_tokens": [*spec["added_tokens"], token]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed, ensure_ascii=False))
    found = open_tokenizer(read_tokenizer(str(tmp_path)))
    assert found.encode("абв где").tokens == ["[CLS]", "абв", "где", "[SEP]"]
    assert found.encode("абв", "где").type_ids == [0, 0, 0, 1, 1]
    assert found.token_to_id("<url>") is None and "<url>" in caplog.text


@pytest.mark.parametrize(("pieces", "read"), [(["привет"], "привет"), (["Привет"], "Привет")])
def test_case_of_a_vocabulary_without_a_word_on_it(tmp_path, caplog, pieces, read):
    letters = ["п", "##р"]
    text = "\n".join([*SPECIAL_PIECES, *letters, *pieces]) + "\n"
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
    tokenizer = open_tokenizer(read_tokenizer(str(tmp_path)))
    assert tokenizer.encode("Привет").tokens[1:-1] == [read]
    assert "no do_lower_case" in caplog.text


def _teacher(**changes) -> BertForMaskedLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
    return BertForMaskedLM(BertConfig(**shape | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, "weights of the encoder are missing"),
        ({"vocab_size": 50}, "load"),
    ],
)
def test_teachers_whose_weights_do_not_fit_are_refused(tmp_path, changes, message):
    _teacher().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_masked_lm(tmp_path)


def test_rows_of_an_untied_teacher_are_those_it_reads():
    teacher, student = _teacher(tie_word_embeddings=False), _teacher()
    assert not torch.equal(input_rows(teacher), output_rows(teacher)[1])
    links = Links(sources=[[i] for i in range(40)], splits=[[i] for i in range(40)], counts=None)
    with torch.no_grad():
        initialise(student, teacher, links, rows="fvt", layers="select", cut="topleft")
    assert torch.equal(input_rows(student), input_rows(teacher))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt"])
def test_a_table_of_another_kind_is_no_pair_of_texts(tmp_path, name):
    (tmp_path / name).write_text("en,ru\nA cat,Кот\n")
    with pytest.raises(InputError, match=r"expected a file of columns, \.tsv"):
        list(read_rows(tmp_path / name, ["en", "ru"]))
    (tmp_path / "P.TSV").write_text("en\tru\nA cat\tКот\n")
    (row,) = read_rows(tmp_path / "P.TSV", ["en", "ru"])
    assert row.values == {"en": "A cat", "ru": "Кот"}


@pytest.mark.parametrize("record", [{"text": None, "label": 1}, {"text": "кот", "label": None}])
def test_nothing_is_no_text_and_no_label(tmp_path, record):
    path = write_jsonl(tmp_path / "d.jsonl", [record])
    with pytest.raises(InputError, match=r"d.jsonl:1: NoneType under"):
        read_task(path, Task("x", path, path, "accuracy"))


def test_small_tasks_are_judged_and_one_label_is_told(tmp_path):
    records = [{"text": w, "label": w} for w in ("кот", "пёс", "чай")]
    path = write_jsonl(tmp_path / "t.jsonl", [*records, records[0]])
    task = Task("small", path, path, "accuracy")
    assert probe(task, encode)["linear"] >= 0.5
    one = write_jsonl(tmp_path / "one.jsonl", [records[0]] * 4)
    for judge in (lambda t: probe(t, encode), lambda t: probe_terms(t, "words")):
        with pytest.raises(InputError, match="all training labels are 'кот'"):
            judge(Task("one", one, one, "accuracy"))


def test_tables_of_details_may_lack_a_system():
    results = {"a": {"ru": {"length": {"0-29": {"recall@1": 0.5}}}}, "b": {}}
    lines = detail_table(results, ["a", "b"], "ru", "length")
    assert lines[-1].startswith("| b |")


BASE = (
    'run = "r"\n[corpus]\nsources = [{name="a", files=["a.txt"], license="CC0"}, '
    '{name="a", files=["b.txt"], license="CC0"}]\n[distil]\nalignment = "none"\nmlm = 0.0\n'
)


def test_settings_that_would_fail_later_are_told_before(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(BASE, encoding="utf-8")
    with pytest.raises(ConfigError) as told:
        load_config(file)
    assert [p.partition(":")[0] for p in told.value.problems] == ["corpus.sources", "distil"]
    for setting in ("distil.seed=-1", "student.layers=-1", "student.heads=0"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            load_config(file, [setting])
