"""The stages of the line that work on text: corpus, vocabulary, shards."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec, pieces_by_id

from .corpus import Cleaning, Source, build_corpus, expand
from .folders import Line, fingerprint_source
from .line_vectors import pair_sources
from .loading import load_masked_lm
from .pairs import teacher_texts
from .shards import build_shards
from .stage import Stage, fingerprint_files, fingerprint_stage, run_stage
from .student import input_rows
from .tokenizer import read_tokenizer
from .vocabulary import (
    corpus_texts,
    count_pieces,
    extend,
    join,
    lowercased,
    map_dropped,
    measure_coverage,
    prune,
    train_wordpiece,
    write_vocabulary,
)

_REPORT_TEXTS = 20_000


def corpus(line: Line) -> None:
    """Run the corpus stage."""
    c = line.config.corpus
    sources = [Source(s.name, tuple(s.files), s.license, s.field) for s in c.sources]
    cleaning = Cleaning(
        c.min_chars, c.max_chars, c.valid_share, c.max_broken_share, c.buckets, c.exclude_whole
    )
    held_out = expand(c.exclude, "corpus.exclude")
    inputs = {s.name: fingerprint_files(expand(s.files, s.name)) for s in sources}
    stage = Stage(
        line.folder("01-corpus"),
        c.model_dump(exclude={"directory"}),
        {**inputs, "corpus.exclude": fingerprint_files(held_out)},
        defaults={"exclude_whole": False},
    )

    def work(out: Path) -> None:
        build_corpus(sources, out, cleaning=cleaning, exclude=held_out)

    run_stage(stage, work, force=line.force)


def vocabulary(line: Line) -> None:
    """Run the vocabulary stage."""
    v = line.config.vocabulary
    source = v.tokenizer or line.teacher
    revision = "" if v.tokenizer else line.config.teacher.revision
    corpus = line.folder("01-corpus")
    inputs = {
        "corpus": fingerprint_stage(corpus),
        "teacher": fingerprint_source(source, revision),
    }
    if v.method == "map" and v.tokenizer:  # whose rows tell what is near
        inputs["rows"] = fingerprint_source(line.teacher, line.config.teacher.revision)
    pairs = line.config.sentence if v.pairs else None
    kinds = pair_sources(pairs.sources, share=v.pairs) if pairs else []
    held_out = expand(pairs.exclude, "sentence.exclude") if pairs else []
    inputs |= {f"pairs of {k.name}": fingerprint_files(k.files) for k in kinds}
    settings = v.model_dump()
    if pairs:
        settings |= {"read": pairs.model_dump(include={"sources", "max_chars"})}
        inputs["sentence.exclude"] = fingerprint_files(held_out)
    stage = Stage(
        line.folder("02-vocabulary"), settings, inputs, defaults={"pairs": 0.0, "new_matching": ""}
    )

    def work(out: Path) -> None:
        base = (
            read_tokenizer(source, revision=revision)
            if source
            else bert_tokenizer_spec(SPECIAL_PIECES)
        )
        foreign = list(teacher_texts(kinds, held_out, pairs.max_chars)) if pairs else []

        def texts() -> Iterator[str]:
            yield from corpus_texts(corpus)
            yield from foreign

        whole = base
        if v.method in ("join", "extend"):
            seen = Counter("".join(foreign))
            more = train_wordpiece(base, foreign, seen, v.size, min_char_count=v.min_char_count)
            whole = join(base, more)
        read = foreign if v.method == "extend" else texts()
        counts, chars = count_pieces(whole, read)
        sizes = [*v.report_sizes, v.size] if v.method in ("prune", "join") else []
        pruned = {
            size: prune(whole, counts, size, min_char_count=v.min_char_count) for size in sizes
        }
        known = base["model"]["vocab"]
        if pruned:
            spec = pruned[v.size][0]
            kept = [known.get(p, -1) for p in pieces_by_id(spec)]
        elif v.method == "extend":
            spec = extend(base, whole, counts, v.size, matching=v.new_matching)
            kept = [known.get(p, -1) for p in pieces_by_id(spec)]
        elif v.method == "map":
            teacher = load_masked_lm(line.teacher, revision=revision or None)
            rows = input_rows(teacher).detach().float().numpy()
            spec, kept = map_dropped(base, counts, v.size, rows, min_char_count=v.min_char_count)
        elif v.method == "train":
            like = lowercased(base) if v.lowercase else base
            spec = train_wordpiece(like, texts(), chars, v.size, min_char_count=v.min_char_count)
            kept = [known.get(p, -1) for p in pieces_by_id(spec)]
        else:
            spec, kept = base, list(range(len(base["model"]["vocab"])))
        sample = list(corpus_texts(corpus, "valid"))[:_REPORT_TEXTS]
        reference = base if len(base["model"]["vocab"]) > len(SPECIAL_PIECES) else spec
        ladder = [*(p[0] for s, p in pruned.items() if s != v.size), spec, reference]
        coverage = [measure_coverage(reference, s, sample) for s in ladder]
        write_vocabulary(out, spec, method=v.method, kept=kept, coverage=coverage)
        (out / "base-tokenizer.json").write_text(json.dumps(reference, ensure_ascii=False))

    run_stage(stage, work, force=line.force)


def shards(line: Line) -> None:
    """Run the shards stage."""
    s = line.config.shards
    folders = {
        n: line.folder(f) for n, f in (("corpus", "01-corpus"), ("vocabulary", "02-vocabulary"))
    }
    stage = Stage(
        line.folder("03-shards"),
        s.model_dump(exclude={"processes", "directory"})
        | {
            "strings": line.config.distil.alignment == "match-string",
            "aligned": bool(line.teacher),  # with the teacher's pieces
        },
        {name: fingerprint_stage(folder) for name, folder in folders.items()},
        defaults={"files": 0, "aligned": bool(line.teacher)},
    )

    def work(out: Path) -> None:
        student = folders["vocabulary"] / "tokenizer.json"
        teacher = folders["vocabulary"] / "base-tokenizer.json" if line.teacher else student
        build_shards(
            folders["corpus"],
            out,
            teacher=teacher,
            student=student,
            max_length=s.max_length,
            processes=s.processes,
            limit=s.files,
            strings=line.config.distil.alignment == "match-string",
        )

    run_stage(stage, work, force=line.force)
