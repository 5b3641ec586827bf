"""The one style of all figures: colours, ticks, labels, pages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression

from scaling.arrays import Array
from scaling.errors import InputError
from scaling.files import write_atomically
from scaling.formatting import listed, powers, si

Panel = Callable[[Axes], Axes]
_SCREEN_DPI = 110
Palette = Mapping[int, str]

INK, MUTED, GRID, ACCENT, DENSE = "#1b1f24", "#667085", "#e4e7ec", "#c2410c", "#98a2b3"
LIMIT: Any = {"color": ACCENT, "lw": 0.9, "ls": (0, (4, 3))}  # the line of a limit or of the question
PLATE: Any = {"fc": "white", "ec": "none", "pad": 0.4, "alpha": 0.8}  # behind text over lines
WIDTH = 6.9  # inches between the margins of the report
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.linewidth": 0.7,
    "lines.linewidth": 1.4, "lines.markersize": 4.2, "legend.frameon": False, "svg.fonttype": "path",
    "svg.hashsalt": "scaling", "savefig.dpi": 200, "figure.facecolor": "white",
    "text.usetex": False, "text.parse_math": False,  # names are shown as they are, never as formulas
}  # fmt: skip
_UNDATED: Any = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
_TICK_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), np.arange(1, 10, 0.5), np.arange(1, 10, 0.1))


@dataclass(frozen=True)
class Curve:
    """A line of a law for one E, with the 95 % band of its draws where there are any; `low`, `high` bound it."""

    n_experts: int
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None


def colours(experts: Iterable[int]) -> Palette:
    """One colour for each of these E: dense in grey, routed ones along viridis (legible in print, to the colour-blind).

    All figures of a study share one palette, so that an E keeps its colour.
    """
    routed = sorted({int(e) for e in experts if e > 1})
    places = np.linspace(0.17, 0.85, len(routed)) if len(routed) > 1 else [0.45] * len(routed)
    shades = [mpl.colors.to_hex(mpl.colormaps["viridis"](1 - place)) for place in places]
    return {1: DENSE, **dict(zip(routed, shades, strict=True))}


def legend_columns(names: Iterable[object]) -> int:
    """The number of columns of a legend that fits the page: the longest name sets their width."""
    lengths = [len(str(name)) for name in names]
    return max(1, min(len(lengths), 7, 110 // (max(lengths, default=0) + 6)))


class FigurePage(Figure):
    """A figure that a notebook shows by itself, whatever its backend."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        _draw(self, content, "png", dpi=_SCREEN_DPI)
        return content.getvalue()


def figure(
    *panels: Panel,
    height: float = 2.5,
    width: float = WIDTH,
    ratios: Sequence[float] | None = None,
    legend: Palette | Mapping[str, str] | None = None,
) -> Figure:
    """Panels side by side in the one style, sizes in inches, under a legend of expert counts or names."""
    return pages(panels, heights=[height], legend=legend or {}, width=width, ratios=ratios)


def pages(
    *rows: Sequence[Panel],
    heights: Sequence[float],
    legend: Palette | Mapping[str, str],
    width: float = WIDTH,
    ratios: Sequence[float] | None = None,
) -> Figure:
    """Rows of panels on one page in the one style, sizes in inches, under a legend of expert counts or names."""
    with mpl.rc_context(_STYLE):
        page = FigurePage(figsize=(width, sum(heights)), layout="constrained")
        outer = page.add_gridspec(len(rows), 1, height_ratios=heights)
        for place, panels in enumerate(rows):
            inner = outer[place].subgridspec(1, len(panels), width_ratios=ratios)
            for index, panel in enumerate(panels):
                panel(page.add_subplot(inner[index]))
        _legend(page, legend)
    return page


def _legend(page: Figure, legend: Palette | Mapping[str, str]) -> None:
    """The colours and their meaning, above the panels; nothing for a single colour."""
    if len(legend) > 1:
        page.legend(
            [Line2D([], [], color=colour, marker="o", ls="") for colour in legend.values()],
            [e if isinstance(e, str) else "dense" if e == 1 else f"E = {e}" for e in legend],
            loc="outside upper left",
            ncols=legend_columns(legend),
            handletextpad=0.1,
            columnspacing=1.2,
        )


def titled(panel: Panel, title: str) -> Panel:
    """The panel with a title over it."""

    def drawn(ax: Axes) -> Axes:
        ax.set_title(title)
        return panel(ax)

    return drawn


def save(page: Figure, path: Path) -> Path:
    """Write the figure as .svg, .pdf or .png, the same bytes for the same data. Raises InputError for other endings."""
    kind = path.suffix.lower()
    if kind not in _UNDATED:
        raise InputError(f"{path}: a figure's name ends in {listed(_UNDATED)}")
    content = io.BytesIO()
    _draw(page, content, kind.removeprefix("."), metadata=_UNDATED[kind])
    write_atomically(path, content.getvalue())
    return path


def _draw(page: Figure, content: io.BytesIO, kind: str, **how: Any) -> None:
    """Write the figure in the one style, which labels that are made late need, too."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in another script: drawn as boxes
        page.savefig(content, format=kind, **how)


def dots(x: Any, y: Any, n_experts: Any, palette: Palette, ax: Axes) -> None:
    """Points in the colour of their E."""
    ax.scatter(x, y, c=[palette[int(e)] for e in n_experts], s=16, zorder=3, edgecolors="white", linewidths=0.4)


def band(curve: Curve, colour: Any, ax: Axes, *, lw: float = 1.3, alpha: float = 0.16) -> None:
    """A line and its 95 % band, where it has one."""
    ax.plot(curve.x, curve.y, color=colour, lw=lw)
    if curve.low is not None and curve.high is not None:
        ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=alpha, lw=0)


def limit_losses(losses: Any, ax: Axes) -> None:
    """End the y axis at twice the spread of these losses beyond them, and say so where an interval continues.

    The interval of a size with few runs would otherwise flatten everything else.
    """
    low, high = float(np.min(losses)), float(np.max(losses))
    spare = 2 * max(high - low, 0.02 * high)
    bottom, top = ax.get_ylim()
    limits = max(bottom, low - spare), min(top, high + spare)
    ax.set_ylim(limits)
    if limits != (bottom, top):
        corner: Any = {"xycoords": "axes fraction", "ha": "right", "va": "top", "fontsize": 6.5}
        ax.annotate("↕ 95% intervals continue", (0.99, 0.99), color=MUTED, bbox=PLATE, **corner)


def kept_apart(places: Sequence[float], gap: float) -> Array:
    """Places of labels that are at least a gap apart and in their order, by least squares nearest to those given."""
    wanted = np.asarray(places, dtype=float)
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    result = np.empty_like(wanted)
    result[order] = isotonic_regression(wanted[order] - steps).x + steps
    return result


def star(place: tuple[float, float], ax: Axes, *, ms: float = 12) -> None:
    """The mark of the recommendation, or of the question."""
    ax.plot(*place, marker="*", ms=ms, color=ACCENT, mec="white", mew=0.8, zorder=5, ls="")


def beside(text: str, place: tuple[Any, Any], offset: tuple[float, float], ax: Axes, **look: Any) -> None:
    """Text offset from a place by so many points."""
    ax.annotate(text, place, xytext=offset, textcoords="offset points", **{"fontsize": 6.5, **look})


def beside_bar(text: str, end: float, row: int, ax: Axes, *, left: bool, color: str = INK) -> None:
    """Text to the right of the end of a row's bar, or to its left."""
    beside(text, (end, row), (-3 if left else 3, 0), ax, ha="right" if left else "left", va="center", color=color)


def side_by_side(n_experts: Any, palette: Palette, x: Any) -> Array:
    """Shifts in ln x that set points of equal x but different E side by side, over a twentieth of the axis."""
    order = sorted(palette)
    place = np.array([order.index(int(e)) for e in n_experts]) - (len(order) - 1) / 2
    span = float(np.log(max(np.max(x) / np.min(x), 2.0)))
    return 0.05 * span / max(len(order) - 1, 1) * place


def expert_columns(experts: Iterable[int], ax: Axes) -> None:
    """An x axis with one place for each E."""
    names = ["dense" if e == 1 else str(e) for e in experts]
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel("experts per layer E")
    ax.grid(visible=False, axis="x")


def named_rows(names: Iterable[object], ax: Axes, **look: Any) -> None:
    """A y axis with one row for each name, the first at the bottom."""
    labels = [str(name) for name in names]
    ax.set_yticks(range(len(labels)), labels, **look)
    ax.grid(visible=False, axis="y")


def bare_power(value: float, digits: int = 2) -> str:
    """A number in powers of ten, without a factor of one: `10²¹`."""
    return powers(value, digits).removeprefix("1×")


def signed(value: float, form: str = "+g") -> str:
    """A number with its sign; zero has none."""
    return format(value, form).replace("-", "−") if value else "0"


def ticks(
    axis: Axis,
    values: npt.ArrayLike,
    *,
    most: int = 6,
    digits: int = 3,
    studied: bool = True,
    write: Callable[[float, int], str] = si,
) -> None:
    """Ticks of a log axis: at the studied values where these are few and well apart, else at round numbers."""
    distinct = np.unique(np.asarray(values, dtype=float))
    low, high = np.log10(distinct[0]) - 1e-9, np.log10(distinct[-1]) + 1e-9
    if not studied or len(distinct) > most or np.any(np.diff(np.log10(distinct)) < (high - low) / 10):
        decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        for steps in _TICK_STEPS:
            distinct = np.array([m * 10.0**d for d in decades for m in steps if low <= np.log10(m * 10.0**d) <= high])
            if len(distinct) >= 3:
                break
        distinct = distinct[:: max(1, int(np.ceil(len(distinct) / most)))]
    fixed_ticks(axis, distinct, lambda value: write(value, digits))


def fixed_ticks(axis: Axis, places: Iterable[float], write: Callable[[float], str]) -> None:
    """Ticks at these places only."""
    axis.set_major_locator(FixedLocator([float(place) for place in places]))
    axis.set_major_formatter(lambda value, _: write(value))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
