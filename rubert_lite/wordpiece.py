"""Read, check and prune the WordPiece `tokenizer.json` that is the only source of truth for tokens.

A vocabulary is pruned, not retrained: WordPiece has no merges, greedy longest match means that
removing a piece changes only the words that used it. A text whose teacher pieces were all kept is
therefore split as before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InputError, PackageError

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_WORD_CHARS = 100  # BERT's: a longer word is one [UNK]
# Regular expressions inside a tokenizer.json run on a backtracking engine: only parts that need
# none are accepted.
_NORMALIZERS = {"BertNormalizer", "NFC", "Sequence"}
_PRE_TOKENIZERS = {"BertPreTokenizer", "Sequence"}
_POST_PROCESSORS = {"TemplateProcessing", "BertProcessing"}


def _part_types(part: Any) -> set[str]:
    if not isinstance(part, Mapping):
        return set()
    # Both, whichever belongs to the part: the library reads one, whatever else is there.
    inner = [part.get(key) for key in ("normalizers", "pretokenizers")]
    members = [p for found in inner if isinstance(found, list) for p in found]
    return {str(part.get("type"))}.union(*map(_part_types, members))


def check_tokenizer(spec: Mapping[str, Any], *, vocab_size: int | None = None) -> None:
    """Refuse a tokenizer.json that is not a plain BERT WordPiece with ids below `vocab_size`.

    Raises PackageError with the part that was refused.
    """
    model = spec.get("model")
    if not isinstance(model, Mapping) or model.get("type", "WordPiece") != "WordPiece":
        found = model.get("type") if isinstance(model, Mapping) else None
        raise PackageError(f"tokenizer.json: model type {found!r}, expected 'WordPiece'")
    vocab = model.get("vocab")
    if not isinstance(vocab, Mapping) or not vocab:
        raise PackageError("tokenizer.json: no vocabulary in model.vocab: expected piece -> id")
    bad_ids = [p for p, i in vocab.items() if not isinstance(i, int) or i < 0]
    if bad_ids:
        raise PackageError(f"tokenizer.json: id of {bad_ids[0]!r} is not a non-negative integer")
    _check_words(model)
    for key, allowed in (
        ("normalizer", _NORMALIZERS),
        ("pre_tokenizer", _PRE_TOKENIZERS),
        ("post_processor", _POST_PROCESSORS),
    ):
        refused = _part_types(spec.get(key)) - allowed
        if refused:
            raise PackageError(
                f"tokenizer.json: {key} of type {sorted(refused)[0]!r} is not accepted,"
                f" expected one of {', '.join(sorted(allowed))}"
            )
    missing = [p for p in SPECIAL_PIECES if p not in vocab]
    if missing:
        raise PackageError(f"tokenizer.json: special pieces {', '.join(missing)} are missing")
    highest = max(vocab.values())
    if vocab_size is not None and highest >= vocab_size:
        raise PackageError(
            f"tokenizer.json: highest id {highest}, but the model has only {vocab_size} rows"
        )


def _check_words(model: Mapping[str, Any]) -> None:
    """Refuse what splits words in another way than BERT: texts would have no bounds."""
    longest = model.get("max_input_chars_per_word", _WORD_CHARS)
    if type(longest) is not int or not 1 <= longest <= _WORD_CHARS:
        raise PackageError(
            f"tokenizer.json: max_input_chars_per_word {longest!r}, expected 1 to {_WORD_CHARS}:"
            " a word costs the square of its length"
        )
    for key, expected in (("unk_token", "[UNK]"), ("continuing_subword_prefix", "##")):
        if model.get(key, expected) != expected:
            raise PackageError(
                f"tokenizer.json: {key} {model[key]!r}, expected {expected!r}, as BERT has it"
            )


def strips_accents(spec: Mapping[str, Any]) -> bool:
    """Say whether a tokenizer reads й as и and ё as е, as those of uncased BERT models do."""
    part = spec.get("normalizer")
    if not isinstance(part, Mapping):
        return False
    if part.get("type") == "Sequence":
        return any(strips_accents({"normalizer": p}) for p in part.get("normalizers") or [])
    strip = part.get("strip_accents")
    return part.get("type") == "BertNormalizer" and bool(
        part.get("lowercase", True) if strip is None else strip
    )


def pieces_by_id(spec: Mapping[str, Any]) -> list[str]:
    """List the pieces of a tokenizer.json with dense ids, so that `pieces[id]` is the piece.

    Raises PackageError when ids are not exactly 0..n-1.
    """
    vocab: Mapping[str, int] = spec["model"]["vocab"]
    pieces: list[str | None] = [None] * len(vocab)
    for piece, index in vocab.items():
        if not 0 <= index < len(vocab) or pieces[index] is not None:
            raise PackageError(
                f"tokenizer.json: id {index} of {piece!r}:"
                f" expected each of 0..{len(vocab) - 1} once"
            )
        pieces[index] = piece
    return [p for p in pieces if p is not None]


def bert_tokenizer_spec(pieces: Sequence[str], *, lowercase: bool = False) -> dict[str, Any]:
    """Build the tokenizer.json of a BERT WordPiece vocabulary; the id of a piece is its position.

    The normaliser is NFC, then BertNormalizer with `strip_accents` off: ё and й stay.
    Raises InputError when special pieces are missing or a piece stands twice.
    """
    vocab = {piece: index for index, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        twice = next(p for i, p in enumerate(pieces) if vocab[p] != i)
        raise InputError(f"vocabulary: piece {twice!r} stands twice, expected each piece once")
    missing = [p for p in SPECIAL_PIECES if p not in vocab]
    if missing:
        raise InputError(f"vocabulary: special pieces {', '.join(missing)} are missing")
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": False,
        "lowercase": lowercase,
    }
    spec: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, normalizer]},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }
    _set_special_ids(spec, vocab)
    return spec


def with_specials(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer.json that puts [CLS] and [SEP] around texts and pairs, as BERT does."""
    whole = dict(spec)
    _set_special_ids(whole, spec["model"]["vocab"])
    return whole


def _set_special_ids(spec: dict[str, Any], vocab: Mapping[str, int]) -> None:
    """Rewrite every place of `spec` that repeats the ids of the special pieces."""
    spec["added_tokens"] = [
        {
            "id": vocab[p],
            "content": p,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for p in sorted(SPECIAL_PIECES, key=vocab.__getitem__)
    ]

    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    def special(piece: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": piece, "type_id": type_id}}

    single = [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), special("[SEP]", 1)],
        "special_tokens": {
            p: {"id": p, "ids": [vocab[p]], "tokens": [p]} for p in ("[CLS]", "[SEP]")
        },
    }


def prune_tokenizer(spec: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Keep the pieces with the ids `kept`; the new id of a piece is its place in `kept`.

    Ids are rewritten in the vocabulary, the added tokens and the post-processor; padding and
    truncation are dropped. Raises InputError when `kept` has unknown or repeated ids, or lacks a
    special piece.
    """
    old = pieces_by_id(spec)
    if len(set(kept)) != len(kept):
        raise InputError("kept ids: an id stands twice, expected each id once")
    outside = [i for i in kept if not 0 <= i < len(old)]
    if outside:
        raise InputError(f"kept ids: {outside[0]} is outside the vocabulary 0..{len(old) - 1}")
    vocab = {old[i]: new for new, i in enumerate(kept)}
    missing = [p for p in SPECIAL_PIECES if p not in vocab]
    if missing:
        raise InputError(f"kept ids: special pieces {', '.join(missing)} must be kept")
    pruned = dict(spec) | {"truncation": None, "padding": None}
    pruned["model"] = dict(spec["model"]) | {"vocab": vocab}
    _set_special_ids(pruned, vocab)
    return pruned


def map_tokenizer(spec: Mapping[str, Any], new_ids: Sequence[int]) -> dict[str, Any]:
    """Give the piece with old id `i` the new id `new_ids[i]`; several pieces may share one (GLMD's
    vocabulary map).

    The segmentation stays the teacher's; only the row that a piece looks up changes.
    """
    old = pieces_by_id(spec)
    if len(new_ids) != len(old):
        raise InputError(f"vocabulary map: {len(new_ids)} entries, expected {len(old)}")
    vocab = {piece: int(new_ids[i]) for i, piece in enumerate(old)}
    mapped = dict(spec) | {"truncation": None, "padding": None}
    mapped["model"] = dict(spec["model"]) | {"vocab": vocab}
    _set_special_ids(mapped, vocab)
    return mapped
