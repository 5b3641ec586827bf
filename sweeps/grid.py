"""The grid: `grid.yaml` read into cells. Every error names file, line, field, what was found and what is allowed."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, create_model

from scaling.architecture import FOLLOWING
from scaling.config import BenchConfig, DataConfig, ModelConfig, Resources, RunConfig, TrainConfig
from scaling.errors import InputError

GRIDS = Path(__file__).parent / "grids"
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig, "model": ModelConfig, "train": TrainConfig, "bench": BenchConfig, "resources": Resources,
}  # fmt: skip
# What an axis may be, by its own name: the section it belongs to, or None for a field of the cell itself.
AXES: dict[str, str | None] = {
    **{name: section for section in ("model", "data", "train") for name in SECTIONS[section].model_fields},
    "seed": None,
    "tokens": None,
}
RECORD = "made_with"  # written by `sweep run` into the study's grid.yaml; ignored when that file is read as a grid
KEYS = ("study", "task", "data", "grid", "model", "train", "bench", "resources", RECORD)
MAX_CELLS = 100_000
MAX_ERRORS = 10


@dataclass(frozen=True)
class Grid:
    """A grid as read: `cells` in file order (blocks, then axes, the last one fastest), each run once.

    `settings` holds what the sections say, `blocks` the axes of each block, both validated and without defaults;
    `duplicates` counts cells that were the same run as an earlier one; `record` is what `sweep run` had noted.
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
        """The distinct texts that the cells train on, in order of appearance."""
        return tuple(dict.fromkeys(cell.data for cell in self.cells))


@dataclass(frozen=True)
class _Value:
    """A plain value and where in the file it stood (lines and columns count from 1)."""

    data: Any
    line: int
    column: int


@dataclass(frozen=True)
class _Source:
    """The file being read; collects errors so that one reading tells them all."""

    path: Path
    errors: list[tuple[int, int, str]]  # line, column, message

    def fail(self, place: _Value, message: str) -> None:
        self.errors.append((place.line, place.column, message))

    def stop_if_wrong(self) -> None:
        if self.errors:
            errors = [f"{self.path}:{line}:{column}: {text}" for line, column, text in sorted(set(self.errors))]
            more = [f"... and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
            raise InputError("\n".join(errors[:MAX_ERRORS] + more))


def named_grids() -> dict[str, Path]:
    """The grids that ship with the package, by name."""
    return {path.stem: path for path in sorted(GRIDS.glob("*.yaml"))}


def load(path_or_name: str | Path) -> Grid:
    """Read and validate a grid file, or a named grid (`quickstart`).

    Relative `paths` of the data are taken from the folder of the file. Raises InputError with all that is wrong.
    """
    path = Path(path_or_name)
    if not path.exists() and str(path_or_name) in named_grids():
        path = named_grids()[str(path_or_name)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text ({error.reason})"
        named = ", ".join(named_grids())
        raise InputError(
            f"{path}: cannot read the grid: {reason}. Give a grid.yaml, or a named grid: {named}"
        ) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Grid:
    """Read a grid from its text; `path` names it in errors and is where relative data paths start."""
    source = _Source(path, [])
    top = _mapping(_tree(text, source), source, "the grid")
    for key, value in top.items():
        if key not in KEYS:
            hint = f"; `{key}` is an axis: put it under `grid:`" if key in AXES else _did_you_mean(key, KEYS)
            source.fail(value, f"{key}: unknown key{hint}; allowed: {', '.join(KEYS[:-1])}")
    study = _scalar(top, "study", source, required=True)
    task = _scalar(top, "task", source, required=False)
    settings = {name: _section(name, top.get(name), source) for name in SECTIONS}
    blocks = _blocks(top, source)
    source.stop_if_wrong()
    cells, duplicates = _cells(study, task, settings, blocks, source)
    record = _plain(top[RECORD]) if RECORD in top else {}
    axes = tuple({name: [v.data for v in values] for name, values in axes.items()} for _, axes in blocks)
    return Grid(study, task, cells, settings, axes, text, path, duplicates, record if isinstance(record, dict) else {})


def resolved(grid: Grid, record: dict[str, Any] | None = None) -> str:
    """The grid as YAML with every default filled in and `record` (versions, device, corpus hash) under `made_with`.

    It is itself a grid with the same cells. Left out are only fields whose default follows others (`d_expert`, `dispatch`).
    """
    document: dict[str, Any] = {"study": grid.study, "task": grid.task}
    always_axes = set.intersection(*({*block} for block in grid.blocks))
    for name, kind in SECTIONS.items():
        defaults = {key: info.get_default() for key, info in kind.model_fields.items() if key not in FOLLOWING}
        section = {**defaults, **grid.settings[name]}
        document[name] = {
            key: value for key, value in section.items() if not (key in always_axes and AXES[key] == name)
        }
    document["grid"] = [dict(block) for block in grid.blocks]
    if record:
        document[RECORD] = record
    plain = json.loads(json.dumps(document))  # tuples become lists
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


# ---------------------------------------------------------------------------------------------------------- YAML


def _tree(text: str, source: _Source) -> _Value:
    """The document as `_Value`s all the way down. Syntax errors and duplicate keys carry their line."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{source.path}:1:1: the file is empty. A grid has at least `study:` and `grid:`")
        return _convert(node, loader, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        remedy = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise InputError(f"{source.path}:{place}: not YAML: {problem}{remedy}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source.path}: not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source.path}: nested too deeply, or an alias refers to itself") from error


def _convert(node: yaml.Node, loader: yaml.SafeLoader, source: _Source) -> _Value:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.SequenceNode):
        return _Value([_convert(item, loader, source) for item in node.value], line, column)
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, _Value] = {}
        for key_node, value_node in node.value:
            place = _Value(None, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                source.fail(place, "a key is a name, found a list or a mapping")
                continue
            key, value = str(key_node.value), _convert(value_node, loader, source)
            if key in entries:
                source.fail(place, f"{key}: given twice; first in line {entries[key].line}")
                continue
            # The key's own position is where a reader looks for an unknown or wrong field.
            entries[key] = _Value(value, place.line, place.column)
        return _Value(entries, line, column)
    try:
        return _Value(loader.construct_object(node, deep=True), line, column)
    except ValueError as error:  # such as a date with a 13th month
        raise InputError(f"{source.path}:{line}:{column}: cannot read {node.value!r}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Value):
        return _plain(value.data)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _inner(entry: _Value) -> _Value:
    """The value of a mapping's entry, with its own position."""
    assert isinstance(entry.data, _Value)
    return entry.data


# -------------------------------------------------------------------------------------------------------- fields


def _mapping(value: _Value, source: _Source, what: str) -> dict[str, _Value]:
    if value.data is None:
        return {}
    if not isinstance(value.data, dict):
        source.fail(value, f"{what} must be a mapping of `name: value`, found {_shown(_plain(value))}")
        source.stop_if_wrong()
    return dict(value.data)


def _scalar(top: dict[str, _Value], name: str, source: _Source, *, required: bool) -> str:
    info = RunConfig.model_fields[name]
    if name not in top:
        if required:
            source.errors.append((1, 1, f"{name}: missing; it names the study and its folder under results/"))
        return str(info.get_default())
    return str(_checked(RunConfig, name, _inner(top[name]), source, name))


def _section(name: str, entry: _Value | None, source: _Source) -> dict[str, Any]:
    """The fields that a section sets; null means the default, as if the field were left out."""
    if entry is None:
        return {}
    kind = SECTIONS[name]
    fields = {}
    for key, value in _mapping(_inner(entry), source, name).items():
        if key not in kind.model_fields:
            hint = _elsewhere(key) or _did_you_mean(key, kind.model_fields)
            source.fail(value, f"{name}.{key}: unknown field{hint}; allowed: {', '.join(kind.model_fields)}")
        elif _inner(value).data is not None:
            fields[key] = _checked(kind, key, _inner(value), source, f"{name}.{key}")
    return fields


def _elsewhere(key: str) -> str:
    owners = [section for section, kind in SECTIONS.items() if key in kind.model_fields]
    if owners:
        return f"; `{key}` belongs under `{owners[0]}:`"
    return f"; `{key}` is an axis: put it under `grid:`" if key in AXES else ""


def _blocks(top: dict[str, _Value], source: _Source) -> list[tuple[_Value, dict[str, list[_Value]]]]:
    """The blocks with their position, each a mapping from an axis to its validated values."""
    if "grid" not in top:
        source.errors.append((1, 1, "grid: missing; for example `grid: {n_experts: [1, 8], tokens: [1M]}`"))
        return []
    entry = _inner(top["grid"])
    items = entry.data if isinstance(entry.data, list) else [entry]
    if not items or entry.data is None:
        source.fail(top["grid"], "grid: empty; a block needs at least one axis, for example `n_experts: [1, 8]`")
    return [(item, _axes(item, source)) for item in items if entry.data is not None]


def _axes(block: _Value, source: _Source) -> dict[str, list[_Value]]:
    axes: dict[str, list[_Value]] = {}
    for name, entry in _mapping(block, source, "a block of the grid").items():
        if name not in AXES:
            hint = _elsewhere(name) or _did_you_mean(name, AXES)
            source.fail(entry, f"grid.{name}: unknown axis{hint}; allowed: {', '.join(AXES)}")
            continue
        value = _inner(entry)
        items = value.data if isinstance(value.data, list) else [value]
        if not items or value.data is None:
            source.fail(entry, f"grid.{name}: empty axis; give at least one value, or leave the axis out")
            continue
        section = AXES[name]
        kind = SECTIONS[section] if section else RunConfig
        axes[name] = [
            _Value(
                None if item.data is None else _checked(kind, name, item, source, f"grid.{name}"),
                item.line,
                item.column,
            )
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


def _checked(kind: type[BaseModel], name: str, value: _Value, source: _Source, field: str) -> Any:
    """One value against the type of its field, so that the error has the value's own line and column."""
    try:
        checked = _field_model(kind, name)(value=_plain(value)).value  # type: ignore[attr-defined]
        return _absolute(checked, source.path) if name == "paths" else checked
    except ValidationError as error:
        for detail in error.errors():
            source.fail(value, f"{field}: {_explained(detail)}")
        return None


def _explained(detail: Any) -> str:
    """What a pydantic error says, in our words: what was found, what is allowed."""
    found, context = detail["input"], detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])
    if detail["type"] == "literal_error":
        allowed = [word.strip("' ") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"found {_shown(found)}{_did_you_mean(str(found), allowed)}; allowed: {', '.join(allowed)}"
    if detail["type"] == "string_pattern_mismatch":
        return f"found {_shown(found)}; allowed: letters, digits, `.`, `-`, `_`; the first a letter or digit"
    if detail["type"] == "string_type":
        return f"expected text, found {_shown(found)}; quote it"
    if detail["type"] == "tuple_type":
        return f"expected a list, found {_shown(found)}; write [{found}]"
    return f"found {_shown(found)}; {detail['msg'].replace('Input should', 'must')}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _did_you_mean(word: str, allowed: Any) -> str:
    close = difflib.get_close_matches(word.lower(), [*allowed], n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`" if close else ""


# --------------------------------------------------------------------------------------------------------- cells


def _cells(
    study: str, task: str, settings: dict[str, dict[str, Any]], blocks: list[tuple[_Value, dict[str, list[_Value]]]],
    source: _Source,
) -> tuple[tuple[RunConfig, ...], int]:  # fmt: skip
    """Cross the axes of each block, unite the blocks, keep the first of cells that are the same run."""
    n_points = sum(math.prod(len(values) for values in axes.values()) for _, axes in blocks)
    if n_points > MAX_CELLS:
        raise InputError(f"{source.path}: the grid has {n_points:,} cells; at most {MAX_CELLS:,} are allowed")
    cells: dict[str, RunConfig] = {}
    for place, axes in blocks:
        for point in _points(axes):
            try:
                cell = _cell(study, task, settings, point)
            except ValidationError as error:
                values = ", ".join(f"{name}={_shown(value)}" for name, value in point.items())
                for detail in error.errors():
                    source.fail(place, f"impossible cell ({values}): {_explained(detail)}")
                continue
            # The corpus hash is not known yet; until it is, equal paths stand for equal text.
            cells.setdefault(cell.run_id(json.dumps(cell.data.paths)), cell)
    source.stop_if_wrong()
    return tuple(cells.values()), n_points - len(cells)


def _points(axes: dict[str, list[_Value]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield {name: value.data for name, value in zip(axes, values, strict=True)}


def _cell(study: str, task: str, settings: dict[str, dict[str, Any]], point: dict[str, Any]) -> RunConfig:
    fields: dict[str, Any] = {name: dict(section) for name, section in settings.items()}
    for name, value in point.items():
        if value is None:  # the default
            continue
        section = AXES[name]
        target = fields[section] if section else fields
        target[name] = value
    return RunConfig.model_validate({"study": study, "task": task, **fields})


def _absolute(paths: tuple[str, ...], grid: Path) -> tuple[str, ...]:
    """Workers run in other folders than the grid was read from."""
    return tuple(str(grid.parent.resolve() / Path(path).expanduser()) for path in paths)
