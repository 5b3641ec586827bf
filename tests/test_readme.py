"""Every command of the README and of docs/, as printed: `scaling` ones on a planted study, `make` ones in a clone."""

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from engine_rows import engine_table, planted_rows
from notebook import run_notebook
from planted_rates import write_mixture_regression
from synthetic import write_study
from synthetic_methods import write_methods

from analysis.fitting.published import published
from scaling.config import registry
from scaling.training.language_model import train_cells
from sweeps.grid import load_grid

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = [
    line
    for page in PAGES
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)
    for line in block.splitlines()
]


def python_block(beginning: str) -> str:
    """The Python of the README that begins so."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (block,) = [one for one in blocks if one.startswith(beginning)]
    return block


def environment():
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}


def test_every_command_is_known_here():
    assert {line.split()[0] for line in COMMANDS} == {"make", "scaling"}
    assert [line for line in COMMANDS if line.startswith("make")] == ["make quickstart", "make test"]


@pytest.mark.long
def test_the_scaling_commands_run_as_printed(tmp_path):
    """In a folder that holds what the pages say is there: the quickstart's results, and somebody's runs.csv,
    isoflop.csv and engine.csv."""
    study = write_study(tmp_path / "results" / "quickstart")
    write_methods(tmp_path / "results" / "routers")
    write_mixture_regression(tmp_path / "results" / "rates" / "mixture-regression")
    runs = pd.read_parquet(study / "runs").query("status == 'ok' and n_experts == 1")
    runs = runs.rename(columns={"n_active": "params", "loss_val": "loss"})
    runs[["params", "tokens", "loss"]].to_csv(tmp_path / "runs.csv", index=False)
    write_isoflop(tmp_path / "isoflop.csv")
    engine_table().assign(silicon_tpot_ms=1e3 * planted_rows().tpot_s).to_csv(tmp_path / "engine.csv", index=False)
    for line in dict.fromkeys(line for line in COMMANDS if line.startswith("scaling")):
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip() or done.stderr.strip()
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_python_runs_as_printed(tmp_path, monkeypatch):
    """A dense study as somebody's runs.csv, and a published law priced on a device."""
    study = write_study(tmp_path / "study")
    runs = pd.read_parquet(study / "runs").query("status == 'ok' and n_experts == 1")
    runs = runs.rename(columns={"n_active": "params", "loss_val": "loss"})
    runs[["params", "tokens", "loss"]].to_csv(tmp_path / "runs.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(python_block("import scaling"), names)
    assert [member.law for member in names["fit"].members] == ["hoffmann", "coupled"]
    assert (tmp_path / "plan.pdf").read_bytes().startswith(b"%PDF")


def write_isoflop(path):
    """Nine sizes at each of four budgets, by a published law."""
    fit = published("chinchilla-epoch")
    rows = []
    for budget in np.geomspace(1e17, 1e20, 4):
        best = float(fit.definition.optimum(fit.params, budget, 1)[0])
        for n in best * np.geomspace(1 / 8, 8, 9):
            loss = float(fit.loss({"n_active": n, "tokens": budget / 6 / n}))
            rows.append({"n_active": n, "train_flops": budget, "loss_val": loss})
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links or page.name != "README.md"
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert "@@" not in text


def test_what_it_says_of_the_quickstart_is_so():
    text = (ROOT / "README.md").read_text()
    assert f"trains {len(load_grid('quickstart').cells)} small models" in text


def test_the_router_that_the_readme_adds_trains_like_the_others(monkeypatch, micro):
    """The file and the line as printed: the router is found by its name, counted, trained and evaluated."""
    block = python_block("# scaling/model/moe/routers/unit.py")
    code, line = block.split("# scaling/config/registry.py, in ROUTERS\n")
    assert sum(bool(part.strip()) for part in block.splitlines()) <= 10
    module = types.ModuleType("scaling.model.moe.routers.unit")
    exec(compile(code, "unit.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (name, facts), *_ = eval("{" + line + "}", vars(registry)).items()
    monkeypatch.setitem(registry.ROUTERS.own, name, facts)
    config = micro(router=name, n_experts=4, top_k=2, tokens=2048, study="readme")
    (result,) = train_cells([config])
    assert result.run["status"] == "ok"
    assert result.run["router"] == "unit"
    assert result.run["n_router"] == 4 * 16
    assert result.run["load_cv"] > 0


@pytest.mark.slow
def test_the_quickstart_from_a_clone_and_again(tmp_path):
    """`make quickstart` in a copy of the tree, with this environment standing in for the one it would install; called
    again, it trains nothing and changes no finished part."""
    if not (Path(sys.executable).parent / "scaling").exists():
        pytest.skip("the tests do not run in an environment that has the scaling command")
    tree = tmp_path / "tree"
    kept = ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "scaling", "sweeps", "analysis")
    tree.mkdir()
    for name in kept:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tree / name)
    ready = Path(sys.executable).parents[1]
    command = ["make", "quickstart", f"VENV={ready}", "--assume-old", f"{ready}/.ready"]
    settings = {
        key: value for key, value in environment().items() if key not in ("NPROC", "XLA_FLAGS", "JAX_PLATFORMS")
    }
    for again in (False, True):
        before = {path: path.read_bytes() for path in tree.rglob("results/quickstart/*/*.parquet")}
        done = subprocess.run(command, cwd=tree, env=settings, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tree / "results/quickstart/report.pdf").read_bytes().startswith(b"%PDF")
        if again:
            assert before == {path: path.read_bytes() for path in tree.rglob("results/quickstart/*/*.parquet")}
    runs = pd.read_parquet(tree / "results/quickstart/runs")
    assert set(runs["status"]) == {"ok"}

    from analysis.methods.paired import paired_difference

    largest = runs[(runs["d_model"] == runs["d_model"].max()) & (runs["tokens"] == runs["tokens"].max())]
    by_experts = largest.set_index("n_experts")["run_id"]
    effect = paired_difference(tree / "results/quickstart", by_experts[1], by_experts[8])
    assert effect.difference > 3 * effect.standard_error
    assert effect.standard_error <= 0.005
    run_notebook(tree / "results/quickstart")  # a cell that disagrees with the package fails
