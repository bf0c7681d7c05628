"""A line that makes a sentence encoder, and a second one that goes on from what was published."""

import shutil
from pathlib import Path

import numpy as np

from train import line_vectors
from train.config import load_config
from train.folders import Line
from train.line import STAGES, run_line
from train.loading import load_masked_lm
from train.student import encoder

from .toy_line import CORPUS, SMALL, STUDENT, write_words

RELEASED = (
    'run = "runs/first"\n'
    + CORPUS
    + SMALL
    + STUDENT
    + """
[distil]
alignment = "none"
mlm = 1.0
steps = 1
tokens_per_batch = 200
[sentence]
teacher = "words.txt"
prefixes = [4]
max_length = 16
language = 0.1
language_tokens = 100
steps = 1
tokens_per_batch = 100
learning_rate = 1e-5
[[sentence.sources]]
name = "pairs"
files = ["words.txt"]
license = "CC0"
"""
)
MORE = """
base = "first.toml"
run = "runs/more"
[vocabulary]
method = "full"
tokenizer = "released"
[sentence]
source = "released"
bag = 0.1
"""
UNTIL_SENTENCE = list(STAGES)[: list(STAGES).index("sentence") + 1]


def publish(folder: Path, monkeypatch) -> Path:
    """Write what a user has: an encoder without a head, its tokenizer, what it was taught."""
    monkeypatch.chdir(folder)
    write_words(folder)
    (folder / "first.toml").write_text(RELEASED, encoding="utf-8")
    (folder / "more.toml").write_text(MORE, encoding="utf-8")

    def encode(texts):
        return np.stack([np.random.default_rng(len(t)).normal(size=8) for t in texts])

    monkeypatch.setattr(line_vectors, "open_encoder", lambda *_, **__: encode)
    first = Line(load_config(Path("first.toml")))
    run_line(first, UNTIL_SENTENCE)
    made = first.folder("05-sentence")
    encoder(load_masked_lm(made)).save_pretrained("released")
    for name in ("tokenizer.json", "training.json"):
        shutil.copyfile(made / name, Path("released") / name)
    return Path("released")


def mixed(*shares: tuple[str, float]) -> str:
    """Write the override of a configuration that keeps shares of checkpoints."""
    tables = (f'{{ checkpoint = "{folder}", share = {share} }}' for folder, share in shares)
    return f"sentence.mix=[{', '.join(tables)}]"
