"""What the tests of sweeps that are disturbed ask in the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from families import Family
from places import Place, sweep, table

from scaling.schema import TABLES


def wait_for(condition: Callable[[], object], family: Family, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert family.driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def said(place: Place) -> list[str]:
    return (place.folder / "stderr").read_text().splitlines()


def require_same_as_undisturbed(place: Place, grid: str) -> None:
    """The tables of the study are those of a sweep that nothing disturbed."""
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    sweep(place.grid(grid), calm)
    for name in TABLES:
        assert table(place.out, name) == table(calm.out, name)
    assert {row["status"] for row in table(place.out, "runs")} == {"ok"}
    left = {path.name for path in place.out.iterdir()}
    assert left <= {*TABLES, "grid.yaml", ".lock", "checkpoints", "live"}
    assert not list(place.out.glob("live/*"))
    assert not list(place.out.glob("checkpoints/*"))


def steps_of(place: Place) -> list[int]:
    """The steps that were taken, in their order; of one cell."""
    return [int(line.split()[1]) for line in place.noted("step")]
