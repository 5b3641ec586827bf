"""Reading a grid file into cells. Every error names file, line, field, value and what is allowed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, create_model

from scaling.config.bench import BenchConfig, Resources
from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig, following
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.errors import InputError
from scaling.yaml_text import (
    YamlSource,
    YamlValue,
    did_you_mean,
    inner_value,
    mapping,
    parse_tree,
    plain,
    shown,
    shown_key,
    yaml_text,
)

GRIDS = Path(__file__).parent / "grids"
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "bench": BenchConfig,
    "resources": Resources,
}
# The allowed axes: name -> section, or None for a field of the cell itself.
AXES: dict[str, str | None] = {
    **{name: section for section in ("model", "data", "train") for name in SECTIONS[section].model_fields},
    "seed": None,
    "tokens": None,
}
RECORD = "made_with"  # written by `sweep run` into the study's grid.yaml; not part of the grid
KEYS = ("study", "task", "data", "grid", "model", "train", "bench", "resources", RECORD)
MAX_CELLS = 100_000

_Block = tuple[YamlValue, dict[str, list[YamlValue]]]
"""The place of a block in the file, and the validated values of each axis."""


@dataclass(frozen=True)
class Grid:
    """A grid file: its distinct `cells` in file order (blocks, then axes, the last axis varying fastest).

    `settings` holds the sections and `blocks` the axes of each block, both validated and without defaults;
    `duplicates` counts cells that repeat an earlier run; `record` is what `sweep run` wrote about the run.
    """

    study: str
    task: str
    cells: tuple[RunConfig, ...]
    settings: dict[str, dict[str, Any]]
    blocks: tuple[dict[str, list[Any]], ...]
    source: str
    path: Path
    duplicates: int
    record: dict[str, Any]

    @property
    def corpora(self) -> tuple[DataConfig, ...]:
        """The distinct corpora of the cells, in order of appearance."""
        return tuple(dict.fromkeys(cell.data for cell in self.cells))


def named_grids() -> dict[str, Path]:
    """The grids shipped with the package, by name."""
    return {path.stem: path for path in sorted(GRIDS.glob("*.yaml"))}


def load_grid(path_or_name: str | Path) -> Grid:
    """Read and validate a grid file, or a named grid (`quickstart`).

    Relative data `paths` start at the folder of the file. Raises InputError with every mistake.
    """
    path = Path(path_or_name)
    if not path.exists() and str(path_or_name) in named_grids():
        path = named_grids()[str(path_or_name)]
    return parse(yaml_text(path, f"Give a grid file or a named grid: {', '.join(named_grids())}"), path)


def parse(text: str, path: Path) -> Grid:
    """Read a grid from its text; errors name `path`, and relative data paths start at its folder."""
    source = YamlSource(path)
    top = mapping(parse_tree(text, source, "a grid needs at least `study:` and `grid:`"), source, "the grid")
    for key, value in top.items():
        if key not in KEYS:
            hint = _AS_AXIS.format(key) if key in AXES else did_you_mean(key, KEYS)
            source.fail(value, f"{shown_key(key)}: unknown key{hint}; allowed: {', '.join(KEYS[:-1])}")
    if "study" not in top:
        source.errors.append((1, 1, "study: missing; add `study: NAME`, which also names its folder under results/"))
    study, task = (_scalar(top, name, source) for name in ("study", "task"))
    settings = {name: _section(name, top.get(name), source) for name in SECTIONS}
    blocks = _blocks(top, source)
    source.stop_if_wrong()
    cells, duplicates = _cells(study, task, settings, blocks, source)
    record = _record(top, source)
    axes = tuple({name: [v.data for v in values] for name, values in axes.items()} for _, axes in blocks)
    return Grid(study, task, cells, settings, axes, text, path, duplicates, record)


def _record(top: dict[str, YamlValue], source: YamlSource) -> dict[str, Any]:
    """What `sweep run` wrote about the run; its `corpora` are a list of mappings, each with its hash."""
    if RECORD not in top:
        return {}
    entry = inner_value(top[RECORD])
    record = mapping(entry, source, RECORD)
    corpora = inner_value(record["corpora"]) if "corpora" in record else YamlValue([], entry.line, entry.column)
    items = corpora.data if isinstance(corpora.data, list) else [corpora]
    for item in items:
        if not isinstance(item.data, dict) or not isinstance(plain(item).get("hash"), str):
            source.fail(item, f"{RECORD}.corpora: each has a `hash` that is text, found {shown(plain(item))}")
    source.stop_if_wrong()
    return {name: plain(value) for name, value in record.items()}


def resolved(grid: Grid, record: dict[str, Any] | None = None) -> str:
    """The grid as YAML with every default filled in and `record` (versions, device, corpus hash) under `made_with`.

    It is a valid grid with the same cells. Only fields whose default depends on others (`d_expert`) are omitted.
    """
    document: dict[str, Any] = {"study": grid.study, "task": grid.task}
    follows = following()
    in_all_blocks = set.intersection(*({*block} for block in grid.blocks))
    for name, kind in SECTIONS.items():
        defaults = {key: info.get_default() for key, info in kind.model_fields.items() if key not in follows}
        section = {**defaults, **grid.settings[name]}
        document[name] = {
            key: value for key, value in section.items() if not (key in in_all_blocks and AXES[key] == name)
        }
    document["grid"] = [dict(block) for block in grid.blocks]
    if record:
        document[RECORD] = record
    plain_values = json.loads(json.dumps(document))  # tuples become lists
    return yaml.safe_dump(plain_values, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _scalar(top: dict[str, YamlValue], name: str, source: YamlSource) -> str:
    if name not in top:
        return str(RunConfig.model_fields[name].get_default())
    return str(_checked(RunConfig, name, inner_value(top[name]), source, name))


def _section(name: str, entry: YamlValue | None, source: YamlSource) -> dict[str, Any]:
    """The fields that a section sets; null means the default."""
    if entry is None:
        return {}
    kind = SECTIONS[name]
    fields = {}
    for key, value in mapping(inner_value(entry), source, name).items():
        if key not in kind.model_fields:
            hint = _elsewhere(key) or did_you_mean(key, kind.model_fields)
            source.fail(value, f"{name}.{shown_key(key)}: unknown field{hint}; allowed: {', '.join(kind.model_fields)}")
        elif inner_value(value).data is not None:
            fields[key] = _checked(kind, key, inner_value(value), source, f"{name}.{key}")
    return fields


_AS_AXIS = "; `{}` is an axis: put it under `grid:`"


def _elsewhere(key: str) -> str:
    owners = [section for section, kind in SECTIONS.items() if key in kind.model_fields]
    if owners:
        return f"; `{key}` belongs under `{owners[0]}:`"
    return _AS_AXIS.format(key) if key in AXES else ""


def _blocks(top: dict[str, YamlValue], source: YamlSource) -> list[_Block]:
    if "grid" not in top:
        source.errors.append((1, 1, "grid: missing; for example `grid: {n_experts: [1, 8], tokens: [1M]}`"))
        return []
    entry = inner_value(top["grid"])
    items = entry.data if isinstance(entry.data, list) else [entry]
    if not items or entry.data is None:
        source.fail(top["grid"], "grid: empty; a block needs at least one axis, for example `n_experts: [1, 8]`")
    return [(item, _axes(item, source)) for item in items if entry.data is not None]


def _axes(block: YamlValue, source: YamlSource) -> dict[str, list[YamlValue]]:
    axes: dict[str, list[YamlValue]] = {}
    for name, entry in mapping(block, source, "a block of the grid").items():
        if name not in AXES:
            hint = _elsewhere(name) or did_you_mean(name, AXES)
            source.fail(entry, f"grid.{shown_key(name)}: unknown axis{hint}; allowed: {', '.join(AXES)}")
            continue
        value = inner_value(entry)
        items = value.data if isinstance(value.data, list) else [value]
        if not items or value.data is None:
            source.fail(entry, f"grid.{name}: empty axis; give at least one value or remove the axis")
            continue
        section = AXES[name]
        kind = SECTIONS[section] if section else RunConfig
        axes[name] = [
            item if item.data is None else replace(item, data=_checked(kind, name, item, source, f"grid.{name}"))
            for item in items
        ]
    if not axes and not source.errors:
        source.fail(block, "grid: a block needs at least one axis, for example `n_experts: [1, 8]`")
    return axes


@cache
def _field_model(kind: type[BaseModel], name: str) -> type[BaseModel]:
    info = kind.model_fields[name]
    annotation: Any = info.annotation
    return create_model(name, value=(annotation, info))


def _checked(kind: type[BaseModel], name: str, value: YamlValue, source: YamlSource, field: str) -> Any:
    """Validate one value on its own, so that the error has its line and column."""
    try:
        checked = _field_model(kind, name)(value=plain(value)).value  # type: ignore[attr-defined]
        return _absolute(checked, source.path) if name == "paths" else checked
    except ValidationError as error:
        for detail in error.errors():
            source.fail(value, f"{field}: {_explained(detail)}")
        return None


def _explained(detail: Any) -> str:
    """A pydantic error as a message with the value and what is allowed."""
    value, context = detail["input"], detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])
    if detail["type"] == "literal_error":
        allowed = [word.strip("' ") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"found {shown(value)}{did_you_mean(str(value), allowed)}; allowed: {', '.join(allowed)}"
    if detail["type"] == "string_pattern_mismatch":
        return f"found {shown(value)}; allowed: letters, digits, `.`, `-`, `_`, starting with a letter or digit"
    if detail["type"] == "string_type":
        return f"expected text, found {shown(value)}; quote it"
    if detail["type"] == "tuple_type":
        return f"expected a list, found {shown(value)}; write [{value}]"
    return f"found {shown(value)}; {detail['msg'].replace('Input should', 'must')}"


# --------------------------------------------------------------------------------------------------------- cells


def _cells(
    study: str, task: str, settings: dict[str, dict[str, Any]], blocks: list[_Block], source: YamlSource
) -> tuple[tuple[RunConfig, ...], int]:
    """Cross the axes of each block and unite the blocks, without repeated runs; also the number of repeats."""
    n_points = sum(math.prod(len(values) for values in axes.values()) for _, axes in blocks)
    if n_points > MAX_CELLS:
        raise InputError(f"{source.path}: the grid has {n_points:,} cells; allowed: at most {MAX_CELLS:,}")
    cells: dict[str, RunConfig] = {}
    for place, axes in blocks:
        for values in itertools.product(*axes.values()):
            point = {name: value.data for name, value in zip(axes, values, strict=True)}
            try:
                cell = cell_at(study, task, settings, point)
            except ValidationError as error:
                axis_values = ", ".join(f"{name}={shown(value)}" for name, value in point.items())
                for detail in error.errors():
                    field = "" if detail["type"] == "value_error" else f"{detail['loc'][-1]}: "
                    source.fail(place, f"impossible cell ({axis_values}): {field}{_explained(detail)}")
                continue
            # The corpus hash is not known yet, so equal paths and packages stand for equal text.
            cells.setdefault(cell.run_id(json.dumps([cell.data.paths, cell.data.packages])), cell)
    source.stop_if_wrong()
    return tuple(cells.values()), n_points - len(cells)


def cell_at(study: str, task: str, settings: dict[str, dict[str, Any]], point: Mapping[str, Any]) -> RunConfig:
    """The cell at one value of each axis; None takes the value of `settings`. Raises ValidationError."""
    fields: dict[str, Any] = {name: dict(section) for name, section in settings.items()}
    for name, value in point.items():
        if value is not None:
            section = AXES[name]
            (fields[section] if section else fields)[name] = value
    return RunConfig.model_validate({"study": study, "task": task, **fields})


def axis_value(cell: RunConfig, name: str) -> Any:
    """The value of an axis in a cell."""
    section = AXES[name]
    return getattr(getattr(cell, section) if section else cell, name)


def _absolute(paths: tuple[str, ...], grid: Path) -> tuple[str, ...]:
    """Absolute paths, because workers run in other folders."""
    return tuple(str(grid.parent.resolve() / Path(path).expanduser()) for path in paths)
