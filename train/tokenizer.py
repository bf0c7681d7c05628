"""Read the WordPiece tokenizers of teachers, whatever they come in."""

import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rubert_lite.errors import InputError
from rubert_lite.wordpiece import (
    SPECIAL_PIECES,
    bert_tokenizer_spec,
    check_tokenizer,
    with_specials,
)

from .hub import refuse_missing

logger = logging.getLogger(__name__)

Spec = dict[str, Any]


def open_tokenizer(spec: Spec) -> Tokenizer:
    """Make a tokenizer of a tokenizer.json in memory."""
    return Tokenizer.from_str(json.dumps(spec))


def read_tokenizer(source: str, *, revision: str = "") -> Spec:
    """Read a WordPiece tokenizer from a folder (tokenizer.json or vocab.txt) or by hub id."""
    folder = Path(source)
    if (folder / "tokenizer.json").is_file():
        spec: Spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    elif (folder / "vocab.txt").is_file():
        settings = {}
        if (folder / "tokenizer_config.json").is_file():
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        pieces = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        lowercase = settings.get("do_lower_case")
        if lowercase is None:  # transformers would say yes to any vocabulary
            lowercase = not any(p not in SPECIAL_PIECES and p != p.lower() for p in pieces)
            case = "lower" if lowercase else "mixed"
            logger.warning("%s: no do_lower_case: its pieces are of %s case", source, case)
        spec = bert_tokenizer_spec(pieces, lowercase=lowercase)
        strips = settings.get("strip_accents")
        if lowercase if strips is None else strips:  # BERT's rule; the weights learnt by it
            spec["normalizer"]["normalizers"][1]["strip_accents"] = True
            logger.warning("%s: strips accents, so й is read as и and ё as е", source)
    elif folder.is_dir():
        raise InputError(f"{source}: no tokenizer.json or vocab.txt in this folder")
    else:
        refuse_missing(source)
        from transformers import AutoTokenizer

        try:
            fast = AutoTokenizer.from_pretrained(
                source, revision=revision or None, use_fast=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: no such folder, and not a hub id: {error}") from error
        spec = json.loads(fast.backend_tokenizer.to_str())
    check_tokenizer(spec)
    known = spec["model"]["vocab"]
    foreign = [t["content"] for t in spec.get("added_tokens", []) if t["content"] not in known]
    if foreign:
        logger.warning("%s: added tokens without a piece are text: %s", source, ", ".join(foreign))
        kept = [t for t in spec["added_tokens"] if t["content"] in known]
        spec = spec | {"added_tokens": kept}
    if spec.get("post_processor") is None:
        spec = with_specials(spec)
    return spec | {"truncation": None, "padding": None}
