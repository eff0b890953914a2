"""Configuration: YAML files checked against defaults that live beside their owners.

A default is a plain value, whose type is required; a nested dict; or a `Setting` with limits or several types. Unknown
keys and values of a wrong type are errors that name the file, the key and the nearest valid one.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from easydict import EasyDict

from utils.errors import UserError
from utils.logging import warn

BASE_KEY = "base"  # names the file, relative to this one, whose values are changed


@dataclass(frozen=True)
class Setting:
    """A default and the values that are accepted: of `types` (None too, if it is the default), from `minimum` to
    `maximum`, among `choices`.

    no_effect: the key is accepted for old files, and named in a warning.
    """

    default: Any
    types: type | tuple[type, ...]
    minimum: float | None = None
    maximum: float | None = None
    choices: Collection | None = None
    no_effect: bool = False

    @property
    def kinds(self) -> tuple[type, ...]:
        return self.types if isinstance(self.types, tuple) else (self.types,)


def no_effect(*names: str) -> dict[str, Setting]:
    """Return the keys of the published files that never had an effect."""
    return {name: Setting(None, (bool, int, float, str, list, dict), no_effect=True) for name in names}


def load_config(path: str | Path, schema: dict, overrides: Sequence[str] = ()) -> EasyDict:
    """Read a YAML file (and those it is based on), apply `key=value` overrides, and fill in the defaults.

    Raise UserError for a file that is missing or not YAML, an unknown key, or a value of a wrong type.
    """
    values, origins = _read_with_bases(Path(path), seen=())
    return complete_config(values, schema, overrides, str(path), origins)


def complete_config(
    values: dict, schema: dict, overrides: Sequence[str], source: str, origins: dict[str, str] | None = None
) -> EasyDict:
    """Apply `key=value` overrides to the values of `source`, and fill in the defaults. Raise UserError like
    `load_config`.

    origins: where single keys come from, for messages.
    """
    values, origins = copy.deepcopy(values), dict(origins or {})
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"'{override}' is not an override: write key=value, or section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{key}={text}: the value is not valid YAML") from None
        value = _number(value)
        _set_dotted(values, key.split("."), value)
        origins |= dict.fromkeys([key, *_dotted(value, f"{key}.")], "the command line")

    def where(key: str) -> str:
        """Return the file that set a key, or the nearest section around it."""
        while key not in origins and "." in key:
            key = key.rpartition(".")[0]
        return origins.get(key, source)

    return check_config(values, schema, where)


def check_config(values: dict, schema: dict, where: Callable[[str], str] = lambda key: "the configuration") -> EasyDict:
    """Return the values completed by the schema's defaults. where: key -> the file that set it, for messages."""
    idle: list[str] = []
    result = _check_section(values, schema, "", where, idle)
    if idle:
        warn(f"{where(idle[0])}: {', '.join(idle)} never had an effect in the published code either; ignored")
    return EasyDict(result)


def plain(values: Any) -> Any:
    """Return a config as plain dicts and lists, to be stored."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    return [plain(value) for value in values] if isinstance(values, list | tuple) else values


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> tuple[dict, dict]:
    """Read the values of a file and those it is based on, and the file that set each key, dotted where nested."""
    if path.resolve() in seen:
        raise UserError(f"{path}: `{BASE_KEY}` leads back to this file")
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not valid YAML ({getattr(error, 'problem', 'unreadable')})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: should hold `key: value` lines, but holds {_type_name(values)}")
    base = values.pop(BASE_KEY, None)
    if base is None:
        return values, dict.fromkeys(_dotted(values), str(path))
    if not isinstance(base, str):
        raise UserError(f"{path}: `{BASE_KEY}` should be a file name, not {_type_name(base)}")
    below, origins = _read_with_bases(path.parent / base, (*seen, path.resolve()))
    return _merge(below, values), origins | dict.fromkeys(_dotted(values), str(path))


def _dotted(values: Any, prefix: str = "") -> list[str]:
    """Return the names of all keys in a section and in those within it."""
    if not isinstance(values, dict):
        return []
    return [name for key, value in values.items() for name in (f"{prefix}{key}", *_dotted(value, f"{prefix}{key}."))]


def _merge(below: dict, above: dict) -> dict:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _set_dotted(values: dict, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    values[names[-1]] = value


def _number(value: Any) -> Any:
    """Convert text such as 1e-3, which YAML 1.1 reads as text, to a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_section(values: dict, schema: dict, prefix: str, where: Callable[[str], str], idle: list[str]) -> dict:
    for key in values:
        if key not in schema:
            near = difflib.get_close_matches(str(key), [str(name) for name in schema], 1, cutoff=0.5)
            hint = (
                f"; did you mean `{prefix}{near[0]}`?" if near else f"; it takes {', '.join(sorted(map(str, schema)))}"
            )
            raise UserError(f"{where(prefix + str(key))}: unknown key `{prefix}{key}`{hint}")
    result = {}
    for key, default in schema.items():
        name = f"{prefix}{key}"
        if isinstance(default, dict):
            given = values.get(key)
            given = {} if given is None else given  # in YAML a section of comments alone is null
            if not isinstance(given, dict):
                raise UserError(f"{where(name)}: `{name}` should be a section of keys, not {_type_name(given)}")
            result[key] = _check_section(given, default, f"{name}.", where, idle)
            continue
        setting = default if isinstance(default, Setting) else Setting(default, type(default))
        if setting.no_effect:
            if key in values:
                idle.append(name)
            continue
        result[key] = _check_value(values[key], setting, name, where(name)) if key in values else setting.default
    return result


def _check_value(value: Any, setting: Setting, name: str, where: str) -> Any:
    if value is None and setting.default is None:
        return None
    if float in setting.kinds and isinstance(value, int | str) and not isinstance(value, bool):
        value = _number(value)
        value = float(value) if isinstance(value, int) else value
    if int in setting.kinds and float not in setting.kinds and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, setting.kinds) or (isinstance(value, bool) and bool not in setting.kinds):
        raise UserError(f"{where}: `{name}` should be {type_names(setting)}, but is {_type_name(value)} ({value!r})")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: `{name}` should be a finite number, but is {value}")
    if setting.choices is not None and value not in setting.choices:
        raise UserError(f"{where}: `{name}` should be one of {', '.join(map(str, setting.choices))}, but is {value!r}")
    low, high = setting.minimum, setting.maximum
    if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
        bound = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise UserError(f"{where}: `{name}` should be {bound}, but is {value}")
    return value


def type_names(setting: Setting) -> str:
    """Return the accepted types in words."""
    return " or ".join(_TYPE_NAMES[kind] for kind in setting.kinds)


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a section of keys",
}


def _type_name(value: Any) -> str:
    return "nothing" if value is None else _TYPE_NAMES.get(type(value), type(value).__name__)
