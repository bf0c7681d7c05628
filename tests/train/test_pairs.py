import json
import lzma

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rubert_lite.errors import InputError
from train.corpus_text import is_valid, text_hash
from train.pairs import PairCleaning, PairReport, PairSource, read_lines, read_pairs, write_pairs
from train.tables import read_rows

HEADER = "en\tru\tsource\tlicence\n"
ROWS = [
    ("Hello.", "Привет.", "game", "open"),
    ("How are you?", "Как дела?", "game", "open"),
    ("Good  bye.", "До   свидания.", "book", "unstated"),
    ("Thanks.", "Спасибо.", "game", "open"),
]


def write_tsv(path, rows=ROWS):
    text = HEADER + "".join("\t".join(r) + "\n" for r in rows)
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return str(path)


def source(path, **changes) -> PairSource:
    return PairSource("test", (path,), "CC0", "en", "ru", **changes)


def read(sources, exclude=(), **cleaning):
    reports = [PairReport(s.name, s.license) for s in sources]
    found = read_pairs(sources, reports, cleaning=PairCleaning(**cleaning), exclude=exclude)
    return [(p.teacher, p.student) for p in found], reports


def test_rows_are_the_same_from_every_format(tmp_path):
    records = [dict(zip(("en", "ru"), r[:2], strict=True)) for r in ROWS]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8"
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    paths = [write_tsv(tmp_path / "a.tsv.xz"), tmp_path / "a.jsonl", tmp_path / "a.parquet"]
    for path in paths:
        rows = list(read_rows(path, ["ru", "en"]))
        assert [(r.values["en"], r.values["ru"]) for r in rows] == [r[:2] for r in ROWS]


def test_texts_can_be_chosen_by_what_is_in_them(tmp_path):
    pairs, [report] = read([source(write_tsv(tmp_path / "a.tsv.xz"), matching="^[ДС]")])
    assert [student for _, student in pairs] == ["До свидания.", "Спасибо."]
    assert (report.lines, report.filtered, report.kept) == (4, 2, 2)


def test_plain_text_gives_both_sides(tmp_path):
    (tmp_path / "a.txt").write_text("Раз, два.\nТри, четыре.\n", encoding="utf-8")
    plain = PairSource("plain", (str(tmp_path / "a.txt"),), "CC0")
    assert read([plain])[0] == [("Раз, два.",) * 2, ("Три, четыре.",) * 2]


def test_broken_rows_are_counted_with_their_place(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(HEADER + "one cell\n" + "\t".join(ROWS[0]) + "\n", encoding="utf-8")
    pairs, reports = read([source(str(path))], max_broken_share=0.6)
    assert len(pairs) == 1
    assert reports[0].broken_places == [f"{path}:2: 1 cells, the header has 4"]
    with pytest.raises(InputError, match="1 of 2 lines are broken"):
        read([source(str(path))])


def test_a_missing_column_is_named(tmp_path):
    path = write_tsv(tmp_path / "a.tsv.xz")
    with pytest.raises(InputError, match="no column 'de', the file has en, ru, source, licence"):
        list(read_rows(path, ["de"]))


def test_filters_caps_and_repeats(tmp_path):
    path = write_tsv(tmp_path / "a.tsv.xz", [*ROWS, ROWS[0]])
    pairs, reports = read([source(path)])
    assert pairs[2] == ("Good bye.", "До свидания.")  # white space is cleaned
    assert (len(pairs), reports[0].duplicates) == (4, 1)
    pairs, reports = read([source(path, only={"licence": ["open"]})])
    assert (len(pairs), reports[0].filtered) == (3, 1)
    pairs, reports = read([source(path, without={"source": ["game"]})])
    assert pairs == [("Good bye.", "До свидания.")]
    pairs, reports = read([source(path, cap=1, cap_by="source")])
    assert [p[1] for p in pairs] == ["Привет.", "До свидания."]
    assert reports[0].capped == 3


def test_held_out_texts_stay_out_whichever_side_they_stand_on(tmp_path):
    path = write_tsv(tmp_path / "a.tsv.xz")
    (tmp_path / "dev.tsv").write_text("en\tru\nTHANKS.\tиное\n", encoding="utf-8")
    (tmp_path / "dev.jsonl").write_text('{"text": "как дела?", "label": 1}\n', encoding="utf-8")
    held_out = [str(tmp_path / "dev.tsv"), str(tmp_path / "dev.jsonl")]
    pairs, reports = read([source(path)], exclude=held_out)
    assert [p[1] for p in pairs] == ["Привет.", "До свидания."]
    assert reports[0].excluded == 2


def test_nothing_left_is_an_error(tmp_path):
    path = write_tsv(tmp_path / "a.tsv.xz")
    with pytest.raises(InputError, match="no pair is left"):
        read([source(path, only={"licence": ["none"]})])


def test_passages_join_whole_pairs_on_both_sides(tmp_path):
    rows = [(f"Line {i}.", f"Строка {i}.", "game", "open") for i in range(400)]
    path = write_tsv(tmp_path / "a.tsv.xz", rows)
    out = tmp_path / "out"
    out.mkdir()
    reports = write_pairs([source(path)], out, cleaning=PairCleaning(passages=0.05))
    sides = list(zip(read_lines(out / "teacher.txt"), read_lines(out / "student.txt"), strict=True))
    joined = [p for p in sides if p[0].count("Line") > 1]
    assert len(joined) == reports[0].passages > 5
    assert len(sides) == 400 + len(joined)
    assert all(en.replace("Line", "Строка") == ru for en, ru in joined)
    assert json.loads((out / "pairs.json").read_text())[0]["kept"] == 400


def test_pairs_that_are_held_out_later_stand_in_no_passage(tmp_path):
    rows = [(f"Line {i}.", f"Строка {i}.", "game", "open") for i in range(400)]
    path = write_tsv(tmp_path / "a.tsv.xz", rows)
    pairs, _ = read([source(path)], passages=0.3, valid_share=0.2)
    joined = " ".join(ru for _, ru in pairs if ru.count("Строка") > 1) + " "
    held = [ru for _, ru in pairs if is_valid(text_hash(ru), 0.2)]
    single = [t for t in held if t.count("Строка") == 1]
    assert len(single) > 40 and not any(f"{t} " in joined for t in single)


def test_a_share_of_a_source_is_always_the_same_texts(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"Текст {i}.\n" for i in range(400)), encoding="utf-8")
    plain = PairSource("plain", (str(tmp_path / "a.txt"),), "CC0", share=0.25)
    first, again = read([plain])[0], read([plain])[0]
    assert first == again and 60 < len(first) < 140


def test_each_pair_names_its_source(tmp_path):
    path = write_tsv(tmp_path / "a.tsv.xz", [("A cat.", "Кот.", "game", "open")])
    (tmp_path / "b.txt").write_text("Раз.\nДва.\n", encoding="utf-8")
    plain = PairSource("plain", (str(tmp_path / "b.txt"),), "CC0")
    out = tmp_path / "out"
    out.mkdir()
    write_pairs([source(path), plain], out, cleaning=PairCleaning())
    assert np.load(out / "sources.npy").tolist() == [0, 1, 1]
