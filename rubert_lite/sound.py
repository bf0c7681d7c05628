"""Prove that a model computes: on texts that anybody may ask, finite numbers come out."""

import numpy as np

from .errors import PackageError
from .model import Model

_PROBES = ["Привет", "Как дела у вас сегодня? " * 40]
_ASKED = [(_PROBES[0], _PROBES[1])]


def check_numbers(model: Model, where: str) -> None:
    """Encode, and try the head; PackageError names `where` if vectors or logits are not finite."""
    if not np.isfinite(model.encode(_PROBES)).all():
        raise PackageError(f"{where}: its vectors are not finite: export it again")
    _try_head(model, where)


def _try_head(model: Model, where: str) -> None:
    """Compute what the model says of texts: finite logits, and something that can be read."""
    task = model.package.manifest.task
    if task == "classification":
        texts = model.read(_PROBES, pairs=True)
    elif task == "token-classification":
        texts = model.read_entities(_PROBES).windows
    elif task == "question-answering":
        texts = model.read_answers(_ASKED).windows
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
        model.classify(_PROBES)
    elif task == "token-classification":
        model.tag(_PROBES)
    else:
        model.answer(_ASKED)
