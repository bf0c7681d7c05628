"""Write a model card: what taught the model, on what, what it is not, and how it scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rubert_lite.package import Manifest

from .parity import Parity


def write_card(
    manifest: Manifest,
    training: Mapping[str, Any],
    summaries: Sequence[Parity],
    *,
    sizes: Mapping[str, int],
    notes: str = "",
    languages: Sequence[str] = ("ru",),
) -> str:
    """Return the text of README.md for a package; `sizes` are bytes of its other files.

    `notes`: Markdown that only people can write, such as scores on tasks and weak spots.
    `languages`: codes of what the model reads, as the hub lists them (ISO 639-1).
    """
    parts = [
        _head(manifest, languages),
        _introduction(manifest, training),
        _use(manifest),
        *([notes.strip().splitlines()] if notes.strip() else []),
        _corpora(training),
        _files(sizes),
        _fidelity(summaries),
    ]
    if training.get("metrics"):
        text = json.dumps(training["metrics"], ensure_ascii=False, indent=1)
        parts.append(["## Held-out measures of training", "", "```json", text, "```"])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


UNKNOWN = "unknown"  # in a lineage: a teacher of which nothing is recorded

# As the hub names tasks, and how to call a model of each.
_TAGS = {
    "embedding": "sentence-similarity",
    "classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
}
_PAIRS = 'model.classify([("Анна живёт в Москве.", "Анна - москвичка.")])'
_CALLS = {
    "classification": 'model.classify(["Спасибо!"])',
    "token-classification": 'model.tag(["Анна живёт в Москве."])',
    "question-answering": 'model.answer([("Где живёт Анна?", "Анна живёт в Москве.")])',
}


def _head(manifest: Manifest, languages: Sequence[str]) -> list[str]:
    tag = _TAGS[manifest.task]
    license_id = manifest.license.lower()  # as the hub spells them
    return [
        "---",
        f"language: {json.dumps(list(languages))}",  # in YAML 1.1 a bare `no` is false
        f"license: {json.dumps(license_id)}",  # a JSON string is a YAML string
        "library_name: rubert-lite",
        f"pipeline_tag: {tag}",
        "tags: [onnx, sentence-embeddings, russian, distillation]",
        "---",
    ]


def _introduction(manifest: Manifest, training: Mapping[str, Any]) -> list[str]:
    lines = [
        f"# {manifest.name}",
        "",
        f"{manifest.vocab_size:,} pieces, {manifest.hidden_size} dimensions, at most"
        f" {manifest.max_length} pieces a text. Teacher: {manifest.teacher}.",
    ]
    chosen = training.get("config", {})
    vocabulary = chosen.get("vocabulary", {}) if isinstance(chosen, dict) else {}
    if isinstance(vocabulary, dict) and vocabulary.get("tokenizer"):
        source = PurePosixPath(str(vocabulary["tokenizer"])).name
        method = vocabulary.get("method")
        made = f"method {method!r} from that of {source}"
        if method == "train":
            made = "WordPiece, trained on the texts below"
        if method == "extend":
            made = f"WordPiece, all pieces of {source} and further ones"
        lines.append(f"Vocabulary: {made}.")
    if "sentence_stage" not in training:
        lines += [
            "",
            "How it was trained is not recorded: try it on your own texts before you rely on it.",
        ]
    elif not training["sentence_stage"]:
        lines += [
            "",
            "**A masked language model, not a sentence encoder.** It was never trained on the"
            " meaning of whole sentences: its vectors follow words and style. Use it to try the"
            " package and to fine-tune, not for semantic search.",
        ]
    if training.get("weights"):
        lines += ["", f"Weights: {training['weights']}."]
    if training.get("began_with"):
        lines += ["", f"It learnt on from weights {training['began_with']}."]
    lineage = training.get("lineage")
    if isinstance(lineage, list):
        known = [str(name).casefold() for name in lineage]
        # Said only where all that taught it is known, and what taught that.
        if UNKNOWN not in known and not any("rubert" in name for name in known):
            lines += ["", "No RuBERT weights were used."]
    return lines


def _use(manifest: Manifest) -> list[str]:
    lines = [
        "## Use",
        "",
        "    from rubert_lite import load",
        f"    model = load({json.dumps(manifest.name, ensure_ascii=False)})"
        "  # or the path of this directory",
        f'    model.encode(["Привет, мир"])  # float32, (1, {manifest.hidden_size})',
    ]
    if manifest.task in _CALLS:
        call = _PAIRS if manifest.inputs == "pairs" else _CALLS[manifest.task]
        lines.append(f"    {call}  # {', '.join(manifest.labels)}")
    if manifest.truncate_dims:
        widths = ", ".join(map(str, manifest.truncate_dims))
        lines += [
            "",
            f"`truncate_dim` takes a shorter prefix of the vector ({widths}): measure what that"
            " costs on your texts.",
        ]
    return lines


def _corpora(training: Mapping[str, Any]) -> list[str]:
    corpora = training.get("corpora", [])
    if not corpora:
        return ["## Training text", "", "Not recorded."]
    rows = [
        f"| {c['name']} | {c['license']} | {c.get('use', 'text')} | {c['texts']:,} |"
        for c in corpora
    ]
    head = ["| name | licence | use | texts |", "| --- | --- | --- | --- |"]
    return ["## Training text", "", *head, *rows]


def _files(sizes: Mapping[str, int]) -> list[str]:
    rows = [f"| {name} | {size / 1e6:.2f} |" for name, size in sizes.items()]
    return ["## Files", "", "| file | MB |", "| --- | --- |", *rows]


def _fidelity(summaries: Sequence[Parity]) -> list[str]:
    return [
        "## Fidelity to torch",
        "",
        "| variant | cases | mean cosine | least cosine | change by neighbours |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {s.variant} | {s.cases} | {s.mean_cosine:.6f} | {s.least_cosine:.6f}"
            f" | {s.batch_difference:.1e} |"
            for s in summaries
        ),
    ]
