"""Names from studies, tables and files are data: in the report, in figures and in HTML they appear as they are."""

from __future__ import annotations

import html.parser
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.text
import pytest
import typst
from matplotlib import pyplot

from analysis import figures
from analysis.report import blocks, contents
from analysis.report.subject import Subject
from scaling.table import Column, Table

# Each is code, or half of it, to Typst, HTML, LaTeX, Rich or a shell.
NAMES = [
    '#import "@preview/x:1.0.0"',
    '#eval("1+1")',
    '#read("/etc/passwd")',
    "$1/0$ $",
    "*b* _i_ #strong[x]",
    "\\u{41} \\",
    "@ref <label>",
    "= heading // not",
    "/* open",
    '" + panic() + "',
    "<script>alert(1)</script>&amp;",
    r"$\frac{$",
    r"\input{/etc/passwd}",
    "[red]x[/red]",
    "{0} %s %(x)d ${HOME} $(id)",
    "日本 ☃ ü",
    "_hidden",
    "]",
]


def compiled(document: dict[str, Any], folder: Path, selector: str) -> list[Any]:
    """What Typst makes of the elements of one kind in a report with this content."""
    (folder / "data.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    shutil.copy(Path(contents.__file__).with_name("report.typ"), folder)
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    where: dict[str, Any] = {"root": folder, "font_paths": fonts}
    typst.compile(folder / "report.typ", **where)
    return json.loads(typst.query(folder / "report.typ", selector, **where))


def texts(element: Any) -> set[str]:
    """The texts below an element, those of `text` and `raw`."""
    if isinstance(element, dict):
        own = {element["text"]} if element.get("func") in ("text", "raw") else set()
        return own.union(*map(texts, element.values()))
    return set().union(*map(texts, element)) if isinstance(element, list) else set()


def named(name: str) -> list[dict[str, Any]]:
    """A block of each kind with this name, as it would come from a study."""
    cells = [[name, name]]
    return [
        {"kind": "text", "text": name},
        blocks.heading(name),
        {"kind": "list", "items": [name, name]},
        blocks.code(name),
        {
            "kind": "table", "columns": [name, name], "rows": cells, "caption": name, "align": ["left", "right"],
            "widths": ["auto", "1fr"],
        },
    ]  # fmt: skip


def test_the_template_shows_every_name_as_it_is(tmp_path: Path) -> None:
    everywhere = " ".join(NAMES)
    frame = ("title", "author", "kicker", "subtitle", "footer", "headline", "because", "verdict")
    document = {
        **dict.fromkeys(frame, everywhere),
        "decided": False,
        "tiles": [{"label": name, "value": name, "note": name} for name in NAMES[:4]],
        "summary": named(NAMES[0]),
        "sections": [{"title": name, "blocks": named(name)} for name in NAMES],
    }
    shown = texts(compiled(document, tmp_path, "selector(heading).or(figure).or(raw).or(list).or(par)"))
    assert set(NAMES) <= shown
    titles = [texts(one["body"]) for one in compiled(document, tmp_path, "heading.where(level: 1)")]
    assert titles == [{name} for name in NAMES]


def test_a_report_of_a_study_with_such_a_name_is_made(loaded: Subject, tmp_path: Path) -> None:
    study = replace(loaded, name=" ".join(NAMES) + "\udcff")
    with pytest.MonkeyPatch.context() as patch:
        blank = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
        patch.setattr(contents.figures, "save", lambda _, path: path.write_text(blank))
        contents.write_contents(study, tmp_path)
    document = json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))
    assert " ".join(NAMES) + "?" in document["footer"], "what is no text is replaced"
    compiled(document, tmp_path, "heading")


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_figures_parse_no_name(kind: str, tmp_path: Path) -> None:
    def panel(ax: Any) -> Any:
        figures.style.named_rows(NAMES, ax)
        ax.set(xlabel=NAMES[3], ylabel=NAMES[11])
        ax.annotate(NAMES[11], (0, 0))
        return ax

    shades = dict.fromkeys(NAMES, "red")
    # Somebody's own settings of matplotlib hold for their figures, not for ours.
    with matplotlib.rc_context({"text.parse_math": True}):
        page = figures.figure(figures.titled(panel, NAMES[3]), partial(figures.titled(panel, "")), legend=shades)
        path = figures.save(page, tmp_path / f"{NAMES[13].replace('/', '')}.{kind.upper()}")
    assert path.stat().st_size > 1000
    written = page.findobj(matplotlib.text.Text)
    assert not any(text.get_parse_math() or text.get_usetex() for text in written)
    assert set(NAMES) <= {text.get_text() for text in written}
    assert not pyplot.get_fignums()


class Tags(html.parser.HTMLParser):
    """The tags and texts of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_table_in_a_notebook_has_no_tag_of_a_name() -> None:
    columns = tuple(Column(name, name, text=True) for name in NAMES)
    shown = Tags(Table(NAMES[10], columns, (tuple(NAMES),), tuple(NAMES))._repr_html_())
    assert shown.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert [shown.texts.count(name) for name in NAMES if name != NAMES[10]] == [3] * (len(NAMES) - 1)
