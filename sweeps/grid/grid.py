"""A grid: its cells, and what was said to make them, which can be written again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from scaling.config.cell import Cell
from scaling.config.data import DataConfig
from scaling.config.model import following
from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.grid.block import Block, written, written_conditions
from sweeps.grid.cells import LeftOut
from sweeps.grid.formula import Formula
from sweeps.grid.maker import Maker
from sweeps.grid.names import FIXES, WHERE, Names, as_field, names_of
from sweeps.grid.point import Override

RECORD = "made_with"
"""What `sweep run` writes into the study's grid.yaml beside the grid."""


@dataclass(frozen=True)
class Grid:
    """A grid file: its distinct `cells` in file order (blocks, then axes, the last axis varying fastest).

    `settings` holds the sections and `blocks` the axes of each block, both validated and without defaults, formulas as
    such; `where` holds for all blocks; `overrides` are resources of some cells. `duplicates` counts cells that repeat
    an earlier run, `left_out` the combinations that are none; `record` is what `sweep run` wrote about the run.
    """

    study: str
    task: str
    cells: tuple[Cell, ...]
    settings: dict[str, dict[str, Any]]
    blocks: tuple[Block, ...]
    source: str
    path: Path
    duplicates: int
    record: dict[str, Any]
    where: tuple[Formula, ...] = ()
    overrides: tuple[Override, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def names(self) -> Names:
        """The names that it may use."""
        return names_of(self.task)

    @property
    def corpora(self) -> tuple[DataConfig, ...]:
        """The distinct corpora of the cells, in order of appearance; none of a task that draws its own data."""
        return tuple(dict.fromkeys(cell.data for cell in self.cells if isinstance(cell, RunConfig)))

    @property
    def models(self) -> tuple[RunConfig, ...]:
        """The cells of a grid of language models. Raises InputError for another task."""
        models = tuple(cell for cell in self.cells if isinstance(cell, RunConfig))
        if len(models) < len(self.cells):
            raise self.not_of_models()
        return models

    def not_of_models(self) -> InputError:
        """The error of what only grids of language models can do."""
        return InputError(f"{self.path}: the task of this grid is {self.task}, and this is for language models alone")

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields that the blocks set, in the order of the task's; a shorthand sets the field that it fixes."""
        named = {name for block in self.blocks for name in block.fields}
        return tuple(name for name in self.names.axes if name in named)

    def hashes(self, corpora: Mapping[DataConfig, str]) -> dict[Cell, str]:
        """The hash of each cell's text, "" without one, given those of `corpora`."""
        return {cell: corpora[cell.data] if isinstance(cell, RunConfig) else "" for cell in self.cells}

    @property
    def given(self) -> tuple[str, ...]:
        """Every field that the grid sets, in a section or a block."""
        named = [as_field(name) for section in self.settings.values() for name in section]
        named += [name for override in self.overrides for name in override.fields]
        return tuple(dict.fromkeys([*named, *self.axes]))

    @property
    def resolved_fields(self) -> tuple[str, ...]:
        """The fields that axes, shorthands and formulas give, whose values a cell alone tells."""
        by_rule = [
            as_field(name)
            for section in self.settings.values()
            for name, value in section.items()
            if name in FIXES or isinstance(value, Formula)
        ]
        return tuple(name for name in self.names.axes if name in {*by_rule, *self.axes})


def axis_value(cell: Cell, name: str) -> Any:
    """The value of a field in a cell."""
    names = names_of(cell.task)
    section = names.axes[name]
    return getattr(getattr(cell, section) if section else cell, names.in_cell(name))


def cell_at(grid: Grid, point: Mapping[str, Any]) -> RunConfig:
    """The language model at one value of each axis, the rest by the grid's sections; None takes what they say.

    Raises Refusal for what no cell can be, and InputError for the grid of another task.
    """
    cell = Maker(grid.study, grid.task, grid.settings, grid.overrides).point(point).cell()
    if not isinstance(cell, RunConfig):
        raise grid.not_of_models()
    return cell


def with_axes(grid: Grid, blocks: Iterable[Mapping[str, Sequence[Any]]]) -> Grid:
    """The grid with these blocks of crossed fields instead of its own, and without its `where`.

    Shorthands of its sections stand for no field that the new blocks give. Its cells are not made.
    """
    made = tuple(map(Block.of, blocks))
    fields = {name for block in made for name in block.axes}
    settings = {
        name: {key: value for key, value in section.items() if key not in FIXES or FIXES[key] not in fields}
        for name, section in grid.settings.items()
    }
    return replace(grid, blocks=made, settings=settings, where=(), cells=(), left_out=(), duplicates=0)


def resolved(grid: Grid, record: dict[str, Any] | None = None) -> str:
    """The grid as YAML with every default filled in and `record` (versions, device, corpus hash) under `made_with`.

    It is a valid grid with the same cells. Only fields whose default depends on others (`d_expert`) are omitted.
    """
    document: dict[str, Any] = {"study": grid.study, "task": grid.task}
    names = grid.names
    follows = following() if "model" in names.sections else ()
    in_all_blocks = set.intersection(*({*_always(block)} for block in grid.blocks))
    for name, kind in names.sections.items():
        defaults = {key: info.get_default() for key, info in kind.model_fields.items() if key not in follows}
        section = {**defaults, **{key: written(value) for key, value in grid.settings[name].items()}}
        document[name] = {
            key: value for key, value in section.items() if not (key in in_all_blocks and names.axes.get(key) == name)
        }
    if grid.overrides:
        document["resources"] = [document["resources"], *map(_entry, grid.overrides)]
    if grid.where:
        document[WHERE] = written_conditions(grid.where)
    document["grid"] = [block.to_yaml() for block in grid.blocks]
    if record:
        document[RECORD] = record
    plain_values = json.loads(json.dumps(document))  # tuples become lists
    return yaml.safe_dump(plain_values, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _always(block: Block) -> list[str]:
    """The fields of a block that no combination leaves to the sections."""
    return [name for name, values in block.axes.items() if all(value is not None for value in values)]


def _entry(override: Override) -> dict[str, Any]:
    fields = {name: written(value) for name, value in override.fields.items()}
    return {WHERE: override.where.text, **fields}
