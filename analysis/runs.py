"""Runs: read a study folder or anybody's table, validate it, and count what was left out and why."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.conventions import COMPUTE as COMPUTE
from analysis.conventions import doubts, stated, undecided, with_counts, with_tokens
from analysis.dual import Array
from analysis.laws import EXPERTS, TOKENS, Law
from analysis.laws import LOSS as LOSS
from analysis.mapping import TIED, mapped
from analysis.tables import listed, load, numbers
from scaling.clusters import clustered_mean
from scaling.errors import InputError
from scaling.schema import RUNS, Table

# What of a model's configuration says how large it is; the rest says what kind it is.
SHAPE = (
    "d_model",
    "n_layers",
    "d_head",
    "d_expert",
    "d_mlp",
    "n_experts",
    "top_k",
    "rank",
    "slots",
    "dtype",
    "dispatch",
)
_NUMBERS = frozenset({TIED, *(name for name, column in RUNS.items() if column.type in (pa.int64(), pa.float64()))})
_SHOWN = 3  # rows named for each reason why rows were left out


@dataclass(frozen=True)
class RunTable:
    """Runs that carry a loss, one a row, in the columns of `scaling.schema`.

    `dropped` says how many rows were left out for which reason, `notes` which conventions were assumed.
    """

    frame: pd.DataFrame
    source: str
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> Array:
        """A copy of a numeric column. Raises InputError naming the columns there are."""
        if name not in self.frame:
            raise InputError(f"{self.source}: no column {name!r}; it has {listed(self.frame.columns)}")
        return self.frame[name].to_numpy(dtype=float, copy=True)

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        return {name: self.column(name) for name in names}

    @property
    def trunks(self) -> npt.NDArray[np.int_]:
        """Which trunk each row belongs to, as whole numbers; a row without `trunk_id` is a trunk of its own."""
        rows = np.arange(len(self.frame))
        if "trunk_id" not in self.frame:
            return rows
        codes = pd.factorize(self.frame["trunk_id"])[0]
        return np.where(codes < 0, len(rows) + rows, codes)


def read(
    source: str | Path,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
    law: Law | None = None,
    drop_highest_loss: int = 0,
    drop_duplicates: bool = False,
) -> RunTable:
    """The runs of a study folder (its runs/*.parquet) or of anybody's table (`analysis.tables.load`).

    `mapping` makes our columns of the table's, {ours: column or arithmetic} (`analysis.mapping.mapped`). `where` is a pandas
    query over the columns after that. With a `law`, rows whose N, tokens or other columns of it are not positive numbers
    are dropped and counted, and so are then the `drop_highest_loss` rows of highest loss. With `drop_duplicates` a row that
    equals an earlier one in every cell is dropped first. Where `tokens` is missing and `train_flops` is there, D = C/(6 N). Of
    a table that is no study folder the notes say what its counts are taken for, which were derived, what is implausible,
    and which rows, counted from 1, were left out. Raises InputError when the source cannot be read, a column is missing or
    no row is left.
    """
    path = Path(source)
    foreign = not path.is_dir()
    frame, dropped = (load(path), []) if foreign else _load_study(path)
    notes: list[str] = []
    places: list[str] = []
    if drop_duplicates:
        repeated = frame.duplicated()
        dropped.append(("a repeat of an earlier row in every cell", int(repeated.sum())))
        frame = frame[~repeated]
    frame, terms = mapped(frame, mapping or {}, str(source), notes)
    if "status" in frame:
        failed = frame.loc[frame["status"].ne("ok"), "status"]
        dropped += [(f"status {status}", int(count)) for status, count in failed.value_counts(dropna=False).items()]
        frame = frame[frame["status"].eq("ok")]
    if "run_id" in frame and frame["run_id"].duplicated().any():
        repeated = frame["run_id"].duplicated()
        dropped.append(("run_id seen before", int(repeated.sum())))
        frame = frame[~repeated]
    target = LOSS if law is None else law.target
    inputs = () if law is None else (law.n_column, *law.columns)
    wanted = [*dict.fromkeys(name for name in inputs if name), target]
    frame, unreadable = _as_numbers(frame, wanted, notes)
    given = frozenset(frame.columns)
    if foreign:
        frame = with_counts(frame, notes)
    frame = with_tokens(frame, notes)
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise InputError(
            f"{source}: the column {', '.join(missing)} is missing"
            + (f", which law {law.name} needs" if law else "")
            + f"; the table has {listed(frame.columns)}. Rename with --map {missing[0]}=NAME"
            + undecided(frame, missing)
        )
    frame = _usable(frame, wanted, unreadable, dropped, places)
    frame = selected(frame, where, dropped)
    if drop_highest_loss:
        if drop_highest_loss < 0:
            raise InputError(f"--drop-highest-loss must be at least 0, found {drop_highest_loss}")
        order = frame[target].sort_values(kind="stable").index
        dropped.append(
            (f"highest {'losses' if target == LOSS else target}, as asked", min(drop_highest_loss, len(frame)))
        )
        left_out = frame.index.isin(order[max(0, len(order) - drop_highest_loss) :])
        places += _examples("the highest losses", frame.index[left_out])
        frame = frame[~left_out]
    dropped = [(reason, count) for reason, count in dropped if count]
    if frame.empty:
        told = "; ".join(f"{count} with {reason}" for reason, count in dropped) or "the table has no rows"
        raise InputError(
            f"{source}: no usable run is left ({told})" + (f": {'; '.join(places)}" if foreign and places else "")
        )
    if foreign:
        notes += [note for note in (stated(frame, wanted if law else sorted(given)),) if note]
        notes += [f"left out: {'; '.join(places)}"] if places else []
        notes += doubts(frame, terms, given)
    kinds = kinds_of_method(frame)
    if len(kinds) > 1:
        notes.append(
            f"the routed runs are of {len(kinds)} methods ({listed(kinds)}): a law over E takes them for one and cannot "
            "tell what is the method's and what E's; fit one at a time with --where"
        )
    same = [name for name in (*wanted, "seed", "run_id") if name in frame]
    repeats = int(frame.duplicated(same).sum())
    if repeats:
        notes.append(
            f"{repeats} rows repeat another row's {', '.join(wanted)} exactly; they were kept (`scaling import "
            "--drop-duplicates` leaves out those that repeat all of a row)"
        )
    notes += _about_trunks(frame, law)
    return RunTable(frame.reset_index(drop=True), str(source), tuple(dropped), tuple(notes))


def _about_trunks(frame: pd.DataFrame, law: Law | None) -> list[str]:
    """What to know of a table whose rows may not be independent runs."""
    if law is None or not law.n_column or TOKENS not in frame:
        return []
    if "trunk_id" not in frame or frame["trunk_id"].isna().all():
        shape = [name for name in (law.n_column, EXPERTS) if name in frame]
        several = frame.groupby(shape)[TOKENS].nunique().gt(1)
        if several.any():
            return [
                f"every row counts as a run of its own, though {int(several.sum())} models have several token budgets: if those "
                "are points of one training run, intervals are too narrow; say so with --map trunk_id=COLUMN"
            ]
        return []
    if EXPERTS in frame and frame.groupby("trunk_id")[EXPERTS].nunique().gt(1).any():
        return [
            "warning: some trunk_id spans several n_experts: is it a name that was used again? A trunk is one training run"
        ]
    return []


def kinds_of_method(frame: pd.DataFrame) -> list[str]:
    """What kinds of routed models there are, whatever their size: `router + experts`, and a numbered setting
    where the runs of such a pair differ in anything else of the model but `SHAPE`. Empty where the rows do not say."""
    if not {"router", "experts", EXPERTS} <= set(frame.columns):
        return []
    routed = frame[(frame[EXPERTS] > 1) & frame["router"].notna()]
    settings = routed["config"].map(_settings) if "config" in routed else pd.Series("", index=routed.index)
    found: dict[str, set[str]] = {}
    for router, experts, setting in zip(routed["router"], routed["experts"], settings, strict=True):
        found.setdefault(f"{router} + {experts}", set()).add(setting)
    return [
        name if len(each) == 1 else f"{name} (setting {number})"
        for name, each in sorted(found.items())
        for number in range(1, len(each) + 1)
    ]


def _settings(config: object) -> str:
    model = json.loads(config).get("model", {}) if isinstance(config, str) and config else {}
    return json.dumps({name: value for name, value in model.items() if name not in SHAPE}, sort_keys=True)


@dataclass(frozen=True)
class PairedDifference:
    """Loss of run a minus loss of run b, nats per token, over the held-out documents both were evaluated on."""

    difference: float
    standard_error: float
    n_documents: int
    n_tokens: int


def paired_difference(study: str | Path, run_a: str, run_b: str) -> PairedDifference:
    """How much higher run a's held-out loss is than run b's, paired by document.

    d = sum_i n_i (a_i - b_i) / sum_i n_i and se^2 = n/(n-1) sum_i n_i^2 (d_i - d)^2 / (sum_i n_i)^2, the ratio
    estimator with documents as clusters. Raises InputError when the evaluations do not pair.
    """
    a, b = (evaluation(Path(study), run) for run in (run_a, run_b))
    both = a.merge(b, on="document", suffixes=("_a", "_b"), validate="one_to_one")
    if len(both) < 2 or len(both) != len(a) or len(both) != len(b):
        raise InputError(f"{study}: {run_a} and {run_b} share {len(both)} of {len(a)} and {len(b)} held-out documents")
    n = both["n_tokens_a"].to_numpy(dtype=float, copy=True)
    if not np.array_equal(n, both["n_tokens_b"].to_numpy(dtype=float, copy=True)):
        raise InputError(f"{study}: runs {run_a} and {run_b} were evaluated on different tokens of the same documents")
    each = both["loss_a"].to_numpy(dtype=float, copy=True) - both["loss_b"].to_numpy(dtype=float, copy=True)
    mean, error = clustered_mean(each, n)
    return PairedDifference(mean, error, len(both), int(n.sum()))


def evaluation(study: Path, run_id: str) -> pd.DataFrame:
    """Held-out loss of a run by document: `document`, `n_tokens`, `loss`. Raises InputError where there is none."""
    frame = _of_run(study, "evals", run_id)
    if frame.empty:
        raise InputError(f"{study}: no evaluation of run {run_id!r} (in evals/{run_id}.parquet or evals.parquet)")
    return frame[["document", "n_tokens", "loss"]]


def curve(study: Path, run_id: str) -> pd.DataFrame:
    """A run's `curves`, empty where there are none."""
    return _of_run(study, "curves", run_id)


def has(study: Path, table: Table) -> bool:
    """Whether a study folder has any part of a table."""
    return bool(_parts(study, table))


def _of_run(study: Path, table: Table, run_id: str) -> pd.DataFrame:
    """The rows of one run, from its part or from a packed study; empty where there are none."""
    part, packed = study / table / f"{run_id}.parquet", study / f"{table}.parquet"
    if part.is_file():
        return pq.read_table(part).to_pandas()
    if not packed.is_file():
        return pd.DataFrame()
    every = _packed(packed, packed.stat().st_mtime_ns)
    return every[every["run_id"] == run_id].reset_index(drop=True)


@functools.lru_cache(maxsize=8)
def _packed(path: Path, written: int) -> pd.DataFrame:
    return pq.read_table(path).to_pandas()


def _parts(study: Path, table: Table) -> list[Path]:
    """The files of a table: a part per cell as a sweep writes them, else the one that `scaling sweep pack` makes of them."""
    parts = sorted(p for p in (study / table).glob("*.parquet") if not p.name.startswith((".", "_")))
    packed = study / f"{table}.parquet"
    return parts or ([packed] if packed.is_file() else [])


def rows(study: Path, table: Table) -> pd.DataFrame:
    """All readable parts of one table of a study folder, whatever their status; `read` counts the unreadable ones."""
    tables = []
    for part in _parts(study, table):
        try:
            tables.append(pq.read_table(part))
        except (OSError, pa.ArrowException):
            continue
    return pa.concat_tables(tables, promote_options="permissive").to_pandas() if tables else pd.DataFrame()


def _load_study(path: Path) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    parts = _parts(path, "runs")
    if not parts:
        raise InputError(
            f"{path}: no runs/*.parquet in this folder, and no runs.parquet; `scaling sweep run --out` writes a study folder"
        )
    tables, unreadable = [], 0
    for part in parts:
        try:
            tables.append(pq.read_table(part))
        except (OSError, pa.ArrowException):
            unreadable += 1
    if not tables:
        raise InputError(f"{path}: none of its {len(parts)} run files is readable")
    frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    return frame, [("an unreadable file", unreadable)] if unreadable else []


def _as_numbers(
    frame: pd.DataFrame, wanted: Sequence[str], notes: list[str]
) -> tuple[pd.DataFrame, dict[str, pd.Series[Any]]]:
    """The frame with its number columns as numbers, and the cells of `wanted` ones that cannot be read.

    What cannot be read in another column is taken for missing, with a note.
    """
    made: dict[str, Any] = {}
    unreadable: dict[str, pd.Series[Any]] = {}
    for name in (name for name in frame.columns if name in _NUMBERS or name in wanted):
        read = numbers(frame[name])
        notes += [f"{name}: {told}" for told in read.conventions]
        cells = frame.loc[read.unreadable, name]
        if name in wanted:
            unreadable[name] = cells
        elif len(cells):
            where = _examples("", cells.index, cells)[0].strip()
            notes.append(f"{name}: {len(cells)} cells are no numbers and were taken for missing ({where})")
        if name in wanted or not pd.api.types.is_numeric_dtype(frame[name]):
            made[name] = read.floats
    return frame.assign(**made), unreadable


def _usable(
    frame: pd.DataFrame,
    wanted: Sequence[str],
    unreadable: Mapping[str, pd.Series[Any]],
    dropped: list[tuple[str, int]],
    places: list[str],
) -> pd.DataFrame:
    """Rows whose wanted columns are positive finite numbers (and E whole, at least 1); the others are counted by reason."""
    for name in wanted:
        least = 1.0 if name == EXPERTS else np.nextafter(0.0, 1.0)
        values = frame[name].to_numpy(dtype=float, na_value=np.nan, copy=True)
        faults = unreadable.get(name, pd.Series(dtype=object))
        no_number = frame.index.isin(faults.index)
        reasons = {
            f"{name} missing": np.isnan(values) & ~no_number,
            f"{name} not a number": no_number,
            f"{name} infinite": np.isinf(values) & ~no_number,
            f"{name} below 1" if name == EXPERTS else f"{name} not positive": np.isfinite(values)
            & (values < least)
            & ~no_number,
            f"{name} not whole": (name == EXPERTS) & (values >= least) & (values != np.round(values)),
        }
        for reason, bad in reasons.items():
            dropped.append((reason, int(bad.sum())))
            places += _examples(reason, frame.index[bad], faults if bad is no_number else None)
        kept = ~np.any(list(reasons.values()), axis=0)
        frame = frame.assign(**{name: values})[kept]
    return frame


def _examples(reason: str, labels: pd.Index[Any], cells: pd.Series[Any] | None = None) -> list[str]:
    """The first rows, from 1, that something is said of, with what stands in their cell; nothing where there are none."""
    shown = [f"{label + 1}" + ("" if cells is None else f" ({cells[label]!r})") for label in labels[:_SHOWN]]
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return [f"{reason} in row{'s' if len(labels) > 1 else ''} {', '.join(shown)}{more}"] if shown else []


def selected(frame: pd.DataFrame, where: str | None, dropped: list[tuple[str, int]]) -> pd.DataFrame:
    if where is None:
        return frame
    if "@" in where or "__" in where:  # pandas would reach beyond the table by them
        raise InputError(f"--where {where!r}: write a condition on columns, without @ and __")
    try:
        chosen = frame.query(where, engine="python")
    except Exception as error:  # whatever the expression does wrong is the user's input
        told = f"{error}; columns are {listed(frame.columns)}"
        raise InputError(f"--where {where!r} cannot be evaluated: {told}") from error
    if not isinstance(chosen, pd.DataFrame):
        raise InputError(f"--where {where!r} does not select rows; write a condition such as 'loss_val < 4'")
    dropped.append((f"not {where}", len(frame) - len(chosen)))
    return chosen
