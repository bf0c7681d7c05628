"""The errors of rubert_lite.

RubertLiteError
├── ModelNotFound       no model of that name, path or hub id
├── PackageError        a model package is broken, tampered with, or of a newer format
├── InputError          texts, files or arguments that cannot be used (also a ValueError)
├── ConfigError         configuration problems, all of them at once
└── ProviderError       the runtime that was asked for (onnxruntime, CUDA) is not there

Every message says what is wrong, where, what was expected and what to do.
"""


class RubertLiteError(Exception):
    """Catch every error that this package raises on purpose."""


class ModelNotFound(RubertLiteError):
    """Report a model name, path or hub id that leads nowhere."""


class PackageError(RubertLiteError):
    """Report a model package that is incomplete, altered, inconsistent or too new."""


class InputError(RubertLiteError, ValueError):
    """Report input that cannot be used."""


class ConfigError(RubertLiteError):
    """Report every problem of a configuration together."""

    def __init__(self, problems: list[str]) -> None:
        """Keep `problems`, one line each, and join them into the message."""
        super().__init__("\n".join(problems))
        self.problems = problems


class ProviderError(RubertLiteError):
    """Report that onnxruntime or the asked execution provider is not installed or not usable."""


def how_to_install(extra: str) -> str:
    """Return the remedy for a missing dependency; it names no index, for none has the package."""
    return f"install rubert_lite with its extra: pip install -e '.[{extra}]' in the checkout"
