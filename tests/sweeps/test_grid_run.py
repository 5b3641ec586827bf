"""A study whose grid is said in the language: it says what it leaves out, and its own grid.yaml is the same study."""

from __future__ import annotations

import io

from places import FAKE, Place

from sweeps.execute import run_sweep
from sweeps.grid import load_grid
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.store import Store


def test_a_study_goes_on_from_the_grid_that_it_wrote(place: Place) -> None:
    path = place.grid(
        "{zip: {d_model: [16, 32], d_expert: [d_model, d_model // 2]}, top_k: [1, 2, 4],"
        " tokens_per_parameter: [0.4, 1], where: top_k < 4, router: topk}",
        more="where: tokens <= 12K\n",
    )
    stream = io.StringIO()
    first = run_sweep(load_grid(path), place.out, Options(executor="inline"), Progress(stream), FAKE)
    read = load_grid(path)
    assert first.trained_now == len(read.cells) > 2
    told = [line for line in stream.getvalue().splitlines() if line.startswith("left out of the grid")]
    assert [f" {left.count} " in line for left, line in zip(read.left_out, told, strict=True)] == [True, True]
    assert sum(left.count for left in read.left_out) + len(read.cells) == 12
    written = load_grid(place.out / "grid.yaml")
    again = run_sweep(written, place.out, Options(executor="inline"), Progress(io.StringIO()), FAKE)
    assert (again.cells, again.trained_now, again.of_older_grids) == (first.cells, 0, [])
    corpus_hash = str(written.record["corpora"][0]["hash"])
    assert {*Store(place.out).survey().cells} == {cell.run_id(corpus_hash) for cell in read.cells}
