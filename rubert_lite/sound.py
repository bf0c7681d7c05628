"""Prove that a model computes: on texts that anybody may ask, finite numbers come out."""

import numpy as np

from .errors import PackageError
from .model import Model

_SHORT, _SENTENCE = "Привет", "Как дела у вас сегодня? "


def check_numbers(model: Model, where: str) -> None:
    """Encode, and try the head; PackageError names `where` if vectors or logits are not finite."""
    texts = _probes(model)
    if not np.isfinite(model.encode(texts)).all():
        raise PackageError(f"{where}: its vectors are not finite: export it again")
    _try_head(model, texts, where)


def _probes(model: Model) -> list[str]:
    """Return a short text and one as long as the model reads: none is cut, which would be told."""
    room = model.package.manifest.max_length - 2
    sentences = room // len(model.spans(_SENTENCE))
    return [_SHORT, _SENTENCE * sentences] if sentences else [_SHORT]


def _try_head(model: Model, probes: list[str], where: str) -> None:
    """Compute what the model says of texts: finite logits, and something that can be read."""
    task = model.package.manifest.task
    asked = [(_SHORT, probes[-1])]
    classed = [(_SHORT, _SHORT)] if model.package.manifest.inputs == "pairs" else probes
    if task == "classification":
        texts = model.read(classed, pairs=True)
    elif task == "token-classification":
        texts = model.read_entities(probes).windows
    elif task == "question-answering":
        texts = model.read_answers(asked).windows
    else:
        return
    for text in texts:
        logits = model.compute([text], "logits")[0]
        if logits.ndim == 2:
            logits = logits[: len(text.ids)]  # rows of padding may follow
        if not np.isfinite(logits).all():
            raise PackageError(
                f"{where}: the logits of its {task} head are not finite, expected numbers: train"
                " the head or export the model again"
            )
    if task == "classification":
        model.classify(classed)
    elif task == "token-classification":
        model.tag(probes)
    else:
        model.answer(asked)
