"""Reading a grid file into cells. Every error names file, line, field, value and what is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scaling.config.run import RunConfig
from scaling.tasks import LANGUAGE_MODEL, TASKS
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
from sweeps.grid.block import Block
from sweeps.grid.cells import Placed, expanded
from sweeps.grid.formula import Formula
from sweeps.grid.grid import RECORD, Grid
from sweeps.grid.maker import Maker
from sweeps.grid.names import AS_AXIS, WHERE, ZIP, Names, as_field, names_of
from sweeps.grid.sections import Places, conditions, require_one, resources, section
from sweeps.grid.values import checked, valid

GRIDS = Path(__file__).parents[1] / "grids"


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
    task = _task(top, source)
    names = names_of(task)
    keys = ("study", "task", "grid", WHERE, *names.sections, RECORD)
    for key, value in top.items():
        if key not in keys:
            hint = AS_AXIS.format(key) if key in (*names.axes, *names.fixes, ZIP) else did_you_mean(key, keys)
            source.fail(value, f"{shown_key(key)}: unknown key{hint}; allowed: {', '.join(keys[:-1])}")
    if "study" not in top:
        source.errors.append((1, 1, "study: missing; add `study: NAME`, which also names its folder under results/"))
    study = str(valid(RunConfig, "study", inner_value(top["study"]), source, "study")) if "study" in top else ""
    places: Places = {}
    settings = {
        name: section(names, name, top.get(name), source, places) for name in names.sections if name != "resources"
    }
    settings["resources"], overrides = resources(names, top.get("resources"), source, places)
    where = conditions(names, top[WHERE], source, WHERE) if WHERE in top else ()
    blocks = _blocks(names, top, source, places)
    source.stop_if_wrong()
    maker = Maker(study, task, settings, overrides)
    cells, duplicates, left_out = expanded(maker, where, blocks, source)
    record = _record(top, source)
    made = tuple(placed.block for placed in blocks)
    return Grid(study, task, cells, settings, made, text, path, duplicates, record, where, overrides, left_out)


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


def _task(top: dict[str, YamlValue], source: YamlSource) -> str:
    """The registered task of a grid; the language model where it names none, or none that there is, which is an
    error of the source."""
    if "task" not in top:
        return LANGUAGE_MODEL
    value = inner_value(top["task"])
    found = plain(value)
    if isinstance(found, str) and found in TASKS:
        return found
    hint = did_you_mean(str(found), TASKS)
    source.fail(value, f"task: found {shown(found)}{hint}; allowed: {', '.join(TASKS)}")
    return LANGUAGE_MODEL


def _blocks(names: Names, top: dict[str, YamlValue], source: YamlSource, places: Places) -> list[Placed]:
    if "grid" not in top:
        example = f"{next(iter(names.axes))}: [1, 8], {names.budget[0]}: [1M]"
        source.errors.append((1, 1, f"grid: missing; for example `grid: {{{example}}}`"))
        return []
    entry = inner_value(top["grid"])
    items = entry.data if isinstance(entry.data, list) else [entry]
    if not items or entry.data is None:
        source.fail(top["grid"], "grid: empty; a block needs at least one axis, for example `n_experts: [1, 8]`")
    return [_block(names, item, source, dict(places)) for item in items if entry.data is not None]


def _block(names: Names, item: YamlValue, source: YamlSource, places: Places) -> Placed:
    dimensions: list[dict[str, list[YamlValue]]] = []
    where: tuple[Formula, ...] = ()
    for name, entry in mapping(item, source, "a block of the grid").items():
        if name == WHERE:
            where = conditions(names, entry, source, "grid.where")
        elif name == ZIP:
            dimensions += _together(names, entry, source, places)
        elif values := _axis(names, name, entry, source, places):
            dimensions.append({name: values})
    if not dimensions and not source.errors:
        source.fail(item, "grid: a block needs at least one axis, for example `n_experts: [1, 8]`")
    block = Block(tuple({name: [value.data for value in of] for name, of in one.items()} for one in dimensions), where)
    return Placed(block, item, [next(iter(one.values())) for one in dimensions])


def _together(names: Names, entry: YamlValue, source: YamlSource, places: Places) -> list[dict[str, list[YamlValue]]]:
    """The groups of a `zip`: a mapping of axes that vary together, or a list of such mappings."""
    value = inner_value(entry)
    groups = []
    for item in value.data if isinstance(value.data, list) else [value]:
        axes = {}
        for name, of in mapping(item, source, "zip").items():
            if values := _axis(names, name, of, source, places):
                axes[name] = values
        lengths = {name: len(values) for name, values in axes.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            source.fail(entry, f"grid.zip: axes that vary together need equally many values; {counts}")
        elif len(lengths) == 1:
            source.fail(entry, f"grid.zip: {next(iter(lengths))} alone varies with nothing; name a second axis")
        elif axes:
            groups.append(axes)
    if not groups and not source.errors:
        source.fail(entry, "grid.zip: empty; name axes, for example `zip: {d_model: [32, 64], n_layers: [2, 4]}`")
    return groups


def _axis(names: Names, name: str, entry: YamlValue, source: YamlSource, places: Places) -> list[YamlValue]:
    """The values of an axis, validated or formulas; none after an error."""
    allowed = (*names.axes, *names.fixes)
    if name not in allowed:
        hint = names.elsewhere(name) or did_you_mean(name, allowed) or f"; allowed: {', '.join(allowed)}"
        source.fail(entry, f"grid.{shown_key(name)}: unknown axis{hint}")
        return []
    value = inner_value(entry)
    items = value.data if isinstance(value.data, list) else [value]
    if not items or value.data is None:
        source.fail(entry, f"grid.{name}: empty axis; give at least one value or remove the axis")
        return []
    require_one(name, f"grid.{name}", entry, source, places)
    if places.get(as_field(name), ("", 0))[0] == f"grid.{name}":
        source.fail(entry, f"grid.{name}: given twice in this block, in `zip` too; remove one")
    places[as_field(name)] = (f"grid.{name}", entry.line)
    return [
        item if item.data is None else replace(item, data=checked(names, name, item, source, f"grid.{name}"))
        for item in items
    ]
