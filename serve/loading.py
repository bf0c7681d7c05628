"""Load the model that a server shows, and prove that it computes."""

from rubert_lite import Model, load
from rubert_lite.sound import check_numbers

from .settings import Settings


def open_model(settings: Settings) -> Model:
    """Load and warm up a model; PackageError if its vectors or logits are no numbers."""
    model = load(
        settings.model,
        variant=settings.variant or None,
        device=settings.device,
        lanes=settings.lanes or None,
    )
    check_numbers(model, settings.model)
    return model
