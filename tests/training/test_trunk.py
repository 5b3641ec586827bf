"""Cells that share a trunk, train side by side or resume from a checkpoint give the results of each trained alone."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.observer import UNOBSERVED
from scaling.training import checkpoint, language_model

# Columns that depend on how cells were trained together; all others must agree.
OTHER = {"started_at", "wall_s", "compile_s", "train_s", "tokens_per_s", "tokens_own", "trunks_together"}
BUDGETS = (4096, 8192, 16384)


def trunk(micro, budgets=BUDGETS, **changes):
    return [micro(n_experts=4, tokens=tokens, **changes) for tokens in budgets]


def own(result):
    """The results of a cell as text: equal texts mean equal bits, including NaN."""
    row = {name: value for name, value in result.run.items() if name not in OTHER}
    return "\n".join(json.dumps(part) for part in [*row.items(), *result.evals, *result.curves])


def together(cells, folder=None):
    return [own(result) for result in language_model.train_cells(cells, folder)]


def alone(cell):
    (result,) = language_model.train_cells([cell])
    return own(result)


@pytest.fixture(scope="module")
def separate(micro):
    """Each cell of the trunk trained alone."""
    return [alone(cell) for cell in trunk(micro)]


def test_branches_of_a_trunk_equal_cells_trained_alone(micro, separate):
    results = list(
        language_model.train_cells(list(reversed(trunk(micro))))
    )  # in the order of budgets, whatever the order asked
    assert [own(result) for result in results] == separate
    assert len({result.run["loss_val"] for result in results}) == 3
    # The first cell's are all its own; each later one's begin where the one before left the trunk, a fifth earlier.
    leave = [cell.steps - cell.cooldown_steps for cell in trunk(micro)]
    expected = [cell.steps - before for cell, before in zip(trunk(micro), [0, *leave], strict=False)]
    assert [result.run["tokens_own"] for result in results] == [256 * steps for steps in expected]


def test_a_trunk_that_diverges_equals_cells_that_do(micro):
    """Also in where: the error names the step, the curve ends there."""
    cells = trunk(micro, lr=1e15)
    results = list(language_model.train_cells(cells))
    assert {result.run["status"] for result in results} == {"diverged"}
    assert [own(result) for result in results] == [alone(cell) for cell in cells]
    assert all("step" in result.run["error"] and not math.isfinite(result.curves[-1]["loss"]) for result in results)


def test_trunks_side_by_side_match_each_alone_even_if_one_diverges(micro):
    """vmap makes other products of the same sums: rounding differs, and training carries it on. After 32 steps losses
    agree to 1e-3; seeds, or rates that differ by half, are further apart than that."""
    cells = [
        cell
        for settings in ({"seed": 1}, {"lr": 2e-3}, {"lr": 1e15})
        for cell in trunk(micro, (4096, 8192), **settings)
    ]
    found = {}
    for result in language_model.train_cells(cells):
        found[result.run["run_id"]] = result
    assert len(found) == len(cells)
    for index, cell in enumerate(cells):
        (judge,) = language_model.train_cells([cell])
        result = found[judge.run["run_id"]]
        assert (result.run["status"], result.run["error"]) == (judge.run["status"], judge.run["error"])
        assert result.run.keys() == judge.run.keys()
        assert result.run["trunks_together"] == 3
        assert [row["step"] for row in result.curves] == [row["step"] for row in judge.curves]
        if index < 4:
            assert result.run["loss_val"] == pytest.approx(judge.run["loss_val"], rel=1e-3)
            first = [one.curves[0] for one in (result, judge)]
            assert first[0] == pytest.approx(first[1], rel=1e-5)  # the first step differs by rounding alone
        else:
            assert result.run["status"] == "diverged"
    losses = [found[result].run["loss_val"] for result in found if found[result].run["status"] == "ok"]
    assert np.min(np.diff(sorted(losses))) > 2e-3 * max(losses)


def test_trunks_side_by_side_need_equal_budgets(micro):
    with pytest.raises(InputError, match="same token budgets"):
        next(language_model.train_cells([*trunk(micro), *trunk(micro, BUDGETS[:2], seed=1)]))


KILLED = """
import json, os, signal, sys
from scaling.training import language_model
from scaling.config.run import RunConfig
from scaling.training import checkpoint, trunk

trunk._CHECK_EVERY = 4
settings = json.load(sys.stdin)
save = checkpoint.Checkpoints.save

def save_and_die(self, point):
    save(self, point)
    place = ["trunk" if point.branch is None else "branch", point.steps, (point.branch or point.trunk).at]
    if place[:2] == settings["die"][:2] and place[2] >= settings["die"][2]:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.Checkpoints.save = save_and_die
from pathlib import Path
cells = [RunConfig.model_validate_json(cell) for cell in settings["cells"]]
for result in language_model.train_cells(cells, Path(settings["folder"])):
    with open(settings["out"], "a") as out:
        out.write(json.dumps([result.run, result.evals, result.curves]) + "\\n")
"""


def kill(cells, folder, out, die):
    """Train in another process until the first checkpoint at or after a place, and there SIGKILL."""
    settings = {"cells": [c.model_dump_json() for c in cells], "folder": str(folder), "out": str(out), "die": die}
    environment = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(settings), env=environment, capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_a_killed_trunk_resumes_and_ends_with_the_same_bits(micro, tmp_path):
    """Killed on the trunk between two budgets, then in a cooldown, then let go on: rows, documents and curves as if
    nothing had happened. Cells that were done are not asked for again, as a sweep does."""
    cells = [
        RunConfig(**(dict(cell) | {"resources": {"checkpoint_minutes": 1e-9}})) for cell in trunk(micro, cooldown=0.5)
    ]
    whole = [own(result) for result in language_model.train_cells(cells)]
    folder, out = tmp_path / "checkpoints", tmp_path / "rows.jsonl"
    # Budgets of 16, 32, 64 steps leave the trunk at 8, 16, 32.
    done = kill(cells, folder, out, ["trunk", 32, 12])
    assert len(done) == 1
    assert list(folder.iterdir())
    done = kill(cells[1:], folder, out, ["branch", 64, 40])
    assert len(done) == 2
    last = list(language_model.train_cells(cells[2:], folder))
    assert not folder.exists()  # the trunk is done
    found = [language_model.CellResult(*row) for row in done] + last
    assert [own(result) for result in found] == whole
    # Nothing was trained twice: tokens since the budget before, as in one go.
    assert [result.run["tokens_own"] for result in found] == [256 * steps for steps in (16, 32 - 8, 64 - 16)]


@pytest.fixture
def left(micro, tmp_path):
    """The folder of a trunk that stopped after its first budget."""
    cells = [RunConfig(**(dict(c) | {"resources": {"checkpoint_minutes": 1e-9}})) for c in trunk(micro, BUDGETS[1:])]
    running = language_model.train_cells(cells, tmp_path / "left")
    next(running)
    running.close()
    assert list((tmp_path / "left").iterdir())
    return tmp_path / "left", cells


def test_a_checkpoint_beyond_a_budget_is_not_used(micro, separate, left):
    """It stands at step 26 of 32, in a cooldown; a cell of 16 steps begins anew."""
    folder, cells = left
    shorter = cells[0].model_copy(update={"tokens": BUDGETS[0]})
    assert together([shorter], folder) == separate[:1]


def test_a_checkpoint_of_other_code_is_not_used(left, separate, caplog):
    folder, cells = left
    (about,) = folder.glob("*/about.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"code_version": "of yesterday"}))
    assert together(cells[1:], folder) == separate[2:]
    assert "of yesterday" in caplog.text


def overwrite(path, content):
    path.write_bytes(content)


def largest(folder):
    return max(
        (path for path in (folder / "states").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip(path):
    """Another bit in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def other_field(name, value):
    return lambda folder: overwrite(
        folder / "about.json", json.dumps(json.loads((folder / "about.json").read_text()) | {name: value}).encode()
    )


DAMAGES = {
    "about.json empty": lambda folder: overwrite(folder / "about.json", b""),
    "about.json cut off": lambda folder: overwrite(folder / "about.json", (folder / "about.json").read_bytes()[:40]),
    "about.json gone": lambda folder: (folder / "about.json").unlink(),
    "about.json of another type": lambda folder: overwrite(folder / "about.json", b"[1]"),
    "steps of another type": other_field("steps", "64"),
    "steps changed": other_field("steps", 63),
    "states gone": lambda folder: shutil.rmtree(folder / "states"),
    "an array gone": lambda folder: largest(folder).unlink(),
    "an array cut off": lambda folder: overwrite(largest(folder), largest(folder).read_bytes()[:-9]),
    "a bit of an array": lambda folder: flip(largest(folder)),
    "reports not a zip": lambda folder: overwrite(folder / "reported.npz", b"no zip"),
    "reports empty": lambda folder: overwrite(folder / "reported.npz", b""),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


def test_a_damaged_checkpoint_is_set_aside_with_a_warning(left, tmp_path, caplog):
    """Whatever is damaged, it is not used; the trunk takes an older one, else begins anew."""
    folder, cells = left
    (whole,) = folder.iterdir()
    program = language_model._prepared(cells, UNOBSERVED).program
    for number, (name, damage) in enumerate(DAMAGES.items()):
        place = tmp_path / str(number)
        shutil.copytree(whole, place / "3")
        shutil.copytree(whole, place / "7")
        damage(place / "7")
        caplog.clear()
        found = checkpoint.Checkpoints(place, 1).load(program.state_shape, program.state_sharding)
        assert (found is not None, found and found.steps) == (True, 32), name
        assert str(place / "7") in caplog.text, name
        assert sorted(path.name for path in place.iterdir()) == ["3", "unusable-7"], name


def test_a_trunk_whose_only_checkpoint_is_damaged_begins_anew(left, separate, caplog):
    folder, cells = left
    (about,) = folder.glob("*/about.json")
    about.write_text("")
    assert together(cells[1:], folder) == separate[2:]
    assert "about.json" in caplog.text
    assert not folder.exists()


def test_a_checkpoint_of_another_shape_is_damaged(left, micro, caplog):
    folder, cells = left
    wider = micro(n_experts=4, tokens=BUDGETS[1], d_model=2 * cells[0].model.d_model)
    program = language_model._prepared([wider], UNOBSERVED).program
    assert checkpoint.Checkpoints(folder, 1).load(program.state_shape, program.state_sharding) is None
    assert "set aside" in caplog.text


def test_a_checkpoint_that_cannot_be_written_costs_no_training(micro, separate, tmp_path, monkeypatch, caplog):
    cells = [RunConfig(**(dict(c) | {"resources": {"checkpoint_minutes": 1e-9}})) for c in trunk(micro)[:1]]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    assert together(cells, tmp_path / "checkpoints") == separate[:1]
    assert "No space left on device" in caplog.text


AT_THE_SPAWN, IN_THE_COOLDOWN = ("trunk", 16, 5), ("branch", 16, 12)


@pytest.mark.parametrize(
    ("seeds", "killed"),
    [
        pytest.param((0,), AT_THE_SPAWN, id="one, at the spawn"),
        pytest.param((0, 1), IN_THE_COOLDOWN, id="side by side, in the cooldown"),
        pytest.param((0,), IN_THE_COOLDOWN, id="one, in the cooldown", marks=pytest.mark.slow),
        pytest.param((0, 1), AT_THE_SPAWN, id="side by side, at the spawn", marks=pytest.mark.slow),
    ],
)
def test_a_method_with_phases_resumes_where_it_was_killed(micro, tmp_path, seeds, killed):
    """One expert until step 5, then four, annealed until step 10; noise, masks and probes are as if nothing had
    happened, for one trunk and for two that train as one program."""
    phases = {"router": "dense-to-sparse", "dense_tokens": 256 * 5, "anneal_tokens": 256 * 5}
    cells = [
        RunConfig(**(dict(cell) | {"resources": {"checkpoint_minutes": 1e-9}}))
        for seed in seeds
        for cell in trunk(micro, BUDGETS[:2], seed=seed, cooldown=0.3, **phases)
    ]
    whole = [own(result) for result in language_model.train_cells(cells)]
    folder, out = tmp_path / "checkpoints", tmp_path / "rows.jsonl"
    assert kill(cells, folder, out, killed) == []
    found = list(language_model.train_cells(cells, folder))
    assert [own(result) for result in found] == whole
    assert [result.run["experts_per_token"] for result in found] == pytest.approx([1.0] * len(cells))
