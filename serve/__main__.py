"""The command `rubert-lite serve [MODEL]`."""

import sys
from collections.abc import Sequence

from rubert_lite.errors import RubertLiteError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a model until a signal ends it; return the exit status."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from .server import bind, configure_logging, hold_hangups, run
    from .settings import Settings
    from .supervisor import supervise

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        settings = CliApp.run(Settings, cli_args=words)
    except (ValidationError, SettingsError) as error:
        print(f"rubert-lite serve: {_explain(error)}", file=sys.stderr)
        return 2
    configure_logging(settings)
    try:
        with hold_hangups():
            if settings.workers > 1:
                return supervise(settings)
            run(settings, bind(settings))
    except RubertLiteError as error:
        print(f"rubert-lite serve: {error}", file=sys.stderr)
        return 1
    return 0


def _explain(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    problems = []
    for found in error.errors(include_url=False):
        name = ".".join(str(part) for part in found["loc"])
        problems.append(f"{name} = {found['input']!r}: {found['msg']}")
    return "; ".join(problems)


if __name__ == "__main__":
    sys.exit(main())
