"""Write a model card: what taught the model, on what, what it is not, and how it scores."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rubert_lite.package import Manifest

from .parity import Parity


def write_card(manifest: Manifest, training: Mapping[str, Any], summaries: Sequence[Parity]) -> str:
    """Return the text of README.md for a package."""
    corpora = training.get("corpora", [])
    task = "text-classification" if manifest.task == "classification" else "sentence-similarity"
    head = [
        "---",
        "language: ru",
        f"license: {manifest.license.lower()}",
        "library_name: rubert-lite",
        f"pipeline_tag: {task}",
        "tags: [onnx, sentence-embeddings, russian, distillation]",
        "---",
        f"# {manifest.name}",
        "",
        f"{manifest.vocab_size:,} pieces, {manifest.hidden_size} dimensions, at most"
        f" {manifest.max_length} pieces a text. Teacher: {manifest.teacher}.",
        "",
    ]
    if not training.get("sentence_stage"):
        head += [
            "**A masked language model, not a sentence encoder.** It was never trained on the"
            " meaning of whole sentences: its vectors follow words and style. Use it to try the"
            " package and to fine-tune, not for semantic search.",
            "",
        ]
    head += ["No RuBERT weights were used.", ""] if "RuBERT" not in manifest.teacher else []
    use = [
        "## Use",
        "",
        "    from rubert_lite import load",
        f'    model = load("{manifest.name}")',
        '    model.encode(["Привет, мир"])          # float32, (1, ' + f"{manifest.hidden_size})",
    ]
    if manifest.labels:
        use.append('    model.classify(["Спасибо!"])           # ' + ", ".join(manifest.labels))
    body = [*use, "", "## Training text", "", "| name | licence | texts |", "| --- | --- | --- |"]
    body += [f"| {c['name']} | {c['license']} | {c['texts']:,} |" for c in corpora]
    body += ["", "## Fidelity to torch", ""]
    body += [
        "| variant | cases | mean cosine | least cosine | change by neighbours |",
        "| --- | --- | --- | --- | --- |",
    ]
    body += [
        f"| {s.variant} | {s.cases} | {s.mean_cosine:.6f} | {s.least_cosine:.6f}"
        f" | {s.batch_difference:.1e} |"
        for s in summaries
    ]
    metrics = training.get("metrics") or {}
    if metrics:
        text = json.dumps(metrics, ensure_ascii=False, indent=1)
        body += ["", "## Held-out measures of training", "", "```json", text, "```"]
    return "\n".join([*head, *body]) + "\n"
