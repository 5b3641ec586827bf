"""What a study folder holds beside its tables and cannot be read is left out of its report, and named there."""

from __future__ import annotations

import os
from pathlib import Path

from analysis.decision.answer import read_answer
from analysis.fitting.fit_file import load_fit
from analysis.report import study
from analysis.tables.study import left_out


def test_damaged_fits_answers_and_grids_are_named_and_left_out(tmp_path: Path) -> None:
    fits = tmp_path / "fits"
    fits.mkdir()
    (fits / "good.json").write_text(
        '{"law": "hoffmann", "params": {"E": 1.7, "A": 400, "alpha": 0.3, "B": 400, "beta": 0.3}}'
    )
    for name, text in (("empty", ""), ("cut", '{"law": "hoff'), ("list", "[1]"), ("other", '{"a": 1}')):
        (fits / f"{name}.json").write_text(text)
    (fits / "folder.json").mkdir()
    os.mkfifo(fits / "pipe.json")
    (fits / "lost.json").symlink_to("nowhere")
    notes: list[str] = []
    assert set(study.readable(fits, lambda file: load_fit(str(file)), notes)) == {"good"}
    bad = ("empty", "cut", "list", "other", "folder", "pipe", "lost")
    assert [name for name in bad if not any(f"{name}.json" in note for note in notes)] == []
    assert study.readable(fits, read_answer, notes) == {}
    (tmp_path / "grid.yaml").write_bytes(b"\xff\xfe")
    assert study.text_of(tmp_path / "grid.yaml", notes) == ""
    assert "grid.yaml" in notes[-1]
    assert study.text_of(tmp_path / "none.yaml", notes) == ""


def test_an_unreadable_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "a.parquet").write_bytes(b"")
    (note,) = left_out(tmp_path, "curves")
    assert "a.parquet" in note
