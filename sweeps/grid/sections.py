"""The sections of a grid file: what holds for all its cells unless an axis says otherwise."""

from __future__ import annotations

from typing import Any

from scaling.errors import InputError
from scaling.yaml_text import YamlSource, YamlValue, did_you_mean, inner_value, mapping, plain, shown, shown_key
from sweeps.grid.formula import Formula
from sweeps.grid.names import WHERE, Names, as_field
from sweeps.grid.point import Override
from sweeps.grid.values import checked

Places = dict[str, tuple[str, int]]
"""The name by which the sections fix each field, and the line where they do."""


def section(names: Names, name: str, entry: YamlValue | None, source: YamlSource, places: Places) -> dict[str, Any]:
    """The fields and shorthands that a section sets; null means the default."""
    if entry is None:
        return {}
    kind = names.sections[name]
    allowed = [*kind.model_fields, *(short for short in names.fixes if names.home(short) == name)]
    fields = {}
    for key, value in mapping(inner_value(entry), source, name).items():
        if key not in allowed:
            hint = names.elsewhere(key) or did_you_mean(key, allowed) or f"; allowed: {', '.join(allowed)}"
            source.fail(value, f"{name}.{shown_key(key)}: unknown field{hint}")
        elif inner_value(value).data is not None:
            fields[key] = checked(names, key, inner_value(value), source, f"{name}.{key}")
            require_one(key, f"{name}.{key}", value, source, places)
            places[as_field(key)] = (f"{name}.{key}", value.line)
    return fields


def require_one(name: str, said: str, place: YamlValue, source: YamlSource, places: Places) -> None:
    """Record a mistake where a field is fixed by two names: a shorthand beside it, or another shorthand."""
    other, line = places.get(as_field(name), (said, 0))
    if other.split(".")[-1] != name:
        source.fail(place, f"{said}: fixes `{as_field(name)}`, and so does {other} in line {line}; remove one of them")


def resources(
    names: Names, entry: YamlValue | None, source: YamlSource, places: Places
) -> tuple[dict[str, Any], tuple[Override, ...]]:
    """The resources of all cells, and those of the cells where a condition holds: a list whose later entries win."""
    if entry is None or not isinstance(inner_value(entry).data, list):
        return section(names, "resources", entry, source, places), ()
    first: dict[str, Any] = {}
    overrides = []
    for number, item in enumerate(inner_value(entry).data):
        parts = mapping(item, source, "an entry of resources")
        condition = parts.pop(WHERE, None)
        inner = YamlValue(YamlValue(parts, item.line, item.column), item.line, item.column)
        fields = section(names, "resources", inner, source, {})
        if condition is not None:
            found = conditions(names, condition, source, "resources.where")
            overrides += [Override(found[0], fields)] if found else []
        elif number == 0:
            first = fields
        else:
            source.fail(item, "resources: every entry but the first needs a `where`, such as `where: n_total > 1e9`")
    return first, tuple(overrides)


def conditions(names: Names, entry: YamlValue, source: YamlSource, said: str) -> tuple[Formula, ...]:
    """The conditions of a `where`: a text or a list of them."""
    value = inner_value(entry)
    found = []
    for item in value.data if isinstance(value.data, list) else [value]:
        text = plain(item)
        if not isinstance(text, str):
            remedy = 'write a condition, such as "top_k <= n_experts"'
            source.fail(item if item.data is not None else entry, f"{said}: found {shown(text)}; {remedy}")
            continue
        try:
            found.append(Formula.parsed(names.readable, WHERE, text, said, (item.line, item.column), condition=True))
        except InputError as error:
            source.fail(item, str(error))
    return tuple(found)
