"""Load the model that a server shows, and prove that it computes."""

import numpy as np

from rubert_lite import Model, load
from rubert_lite.errors import PackageError

from .settings import Settings

_PROBES = ["Привет", "Как дела у вас сегодня? " * 40]


def open_model(settings: Settings) -> Model:
    """Load and warm up a model; PackageError if its vectors are no numbers."""
    model = load(
        settings.model,
        variant=settings.variant or None,
        device=settings.device,
        lanes=settings.lanes or None,
    )
    if not np.isfinite(model.encode(_PROBES)).all():
        raise PackageError(f"{settings.model}: its vectors are not finite: export it again")
    task = model.package.manifest.task
    if task == "classification":
        model.classify(_PROBES)
    elif task == "token-classification":
        model.tag(_PROBES)
    elif task == "question-answering":
        model.answer([(_PROBES[0], _PROBES[1])])
    return model
