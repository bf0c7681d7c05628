"""What graphs are compared with torch on: real texts, and ids that texts rarely reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rubert_lite.normalize import normalize_text


@dataclass(frozen=True)
class Case:
    """One comparison: ids with specials, and what to call them in a message."""

    name: str
    ids: tuple[int, ...]
    types: tuple[int, ...]  # token types; all 0 but for one case of a BERT that has several

    def feeds(self) -> dict[str, NDArray[np.int64]]:
        """Return the inputs of a graph, a batch of one."""
        return {
            "input_ids": np.array([self.ids], np.int64),
            "token_type_ids": np.array([self.types], np.int64),
        }


def make_cases(
    tokenizer_file: Path, texts: Sequence[str], *, vocab_size: int, max_length: int, types: int = 1
) -> list[Case]:
    """Tokenise texts and add made-up rows: the highest and the lowest ids, and the full length.

    `types` is the number of token types; with several, one more row uses them all.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    encoded = tokenizer.encode_batch([normalize_text(t) for t in texts])
    cases = [
        Case(f"text {i} ({_shorten(t)!r})", tuple(e.ids), (0,) * len(e.ids))
        for i, (t, e) in enumerate(zip(texts, encoded, strict=True))
    ]
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    spread = np.linspace(0, vocab_size - 1, max_length - 2).astype(int).tolist()
    few = min(20, vocab_size, max_length - 2)
    made = {
        "the highest ids": range(vocab_size - few, vocab_size),
        "the lowest ids": range(few),
        f"ids over the whole vocabulary, {max_length} pieces": spread,
    }
    for name, ids in made.items():
        cases.append(Case(name, (first, *ids, last), (0,) * (len(ids) + 2)))
    if types > 1:
        ids = cases[-1].ids
        kinds = tuple(i * types // len(ids) for i in range(len(ids)))
        cases.append(Case(f"{types} token types", ids, kinds))
    return cases


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
