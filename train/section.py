"""Configurations: TOML, checked as a whole before anything runs."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rubert_lite.errors import ConfigError

T = TypeVar("T", bound="Section")


class Section(BaseModel):
    """A table of a configuration: unknown keys are errors, types are exact."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the values of the keys that may be left out."""
        fields = cls.model_fields.items()
        return {k: f.get_default() for k, f in fields if not f.is_required()}


def load_section(
    kind: type[T],
    path: Path,
    overrides: Sequence[str] = (),
    *,
    changes: Mapping[str, Any] | None = None,
) -> T:
    """Read a TOML file, apply `section.key=value` overrides (TOML values), and check everything.

    A top-level `base` names another file, relative to this one, whose tables this one changes;
    lists are replaced whole, and {} empties a table. `changes` are put over both. Raises
    ConfigError with all problems; an unknown key comes with the nearest known one.
    """
    data = merge(_read(path, ()), changes or {})
    for override in overrides:
        _override(data, override)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError([explain(e, kind) for e in error.errors()]) from None


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        raise ConfigError([f"{path}: is its own base"])
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: is a folder, expected a TOML file"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from None
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError([f"{path}: base = {base!r}: expected the path of a TOML file"])
    return merge(_read(path.parent / base, (*above, path)), data)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put tables over tables; what is no table is replaced whole, and {} empties a table."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value:
            value = merge(old, value)
        merged[key] = value
    return merged


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {override}: expected section.key=value"])
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    *sections, last = key.strip().split(".")
    place = data
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError([f"--set {override}: {section} is not a section"])
    place[last] = parsed


def explain(error: Any, kind: type[BaseModel]) -> str:
    """Put one of pydantic's errors into words, with the nearest known key of an unknown one."""
    place = [str(p) for p in error["loc"]]
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_keys(place[:-1], kind), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{name}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{name}: missing"
    return f"{name} = {error['input']!r}: {error['msg'].lower()}"


def _known_keys(place: Sequence[str], kind: type[BaseModel]) -> list[str]:
    model: Any = kind
    for part in place:
        if part.isdigit():
            continue
        field = model.model_fields[part]
        choices = (field.annotation, *getattr(field.annotation, "__args__", ()))
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
