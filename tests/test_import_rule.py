"""The import rule of the design: who may import whom, and what has to work without JAX, Flax and Ray."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("scaling", "sweeps", "analysis")
HEAVY = ("jax", "flax", "optax", "ray", "matplotlib", "typst")

# The ground: modules that import each other at most. Every other part stands above it.
GROUND = tuple(
    f"scaling.{name}"
    for name in [
        "architecture",
        "arguments",
        "arrays",
        "bounds",
        "clustered_mean",
        "columns",
        "distribution",
        "errors",
        "expert_rows",
        "expression",
        "files",
        "formatting",
        "numbers",
        "json_text",
        "live",
        "observer",
        "parts",
        "progress",
        "schema",
        "summary",
        "table",
        "values",
        "yaml_text",
    ]
)
ANALYSIS = tuple(
    f"analysis.{name}"
    for name in [
        "laws",
        "tables",
        "fitting",
        "latency",
        "training_speed",
        "methods",
        "isoflop",
        "mixture",
        "decision",
        "worth",
        "validation",
        "rates",
        "returns",
        "figures",
    ]
)
DECISION = tuple(
    f"analysis.{name}" for name in ["decision", "fitting", "latency", "training_speed", "laws", "mixture", "tables"]
)
TRAINING = ("scaling.model", "scaling.data", "scaling.training")
# A task declares itself without JAX, and imports it in the functions that train; packages of theirs stand on it.
TASKS = "scaling.tasks"
ON_JAX = ("scaling.model", "scaling.training", "scaling.tasks.statistics", "scaling.tasks.rl", "scaling.tasks.world")
# What each part may import besides itself, by the longest prefix that fits. An arrow never runs back.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, GROUND),
    "scaling.serving": GROUND,
    "scaling.config": (*GROUND, "scaling.serving"),
    TASKS: (*GROUND, "scaling.config"),
    "scaling.tasks.statistics": (*GROUND, "scaling.config", TASKS),
    "scaling.tasks.rl": (*GROUND, "scaling.config", TASKS, "scaling.model", "scaling.training"),
    "scaling.tasks.world": (*GROUND, "scaling.config", TASKS, "scaling.model", "scaling.training"),
    "scaling.data": (*GROUND, "scaling.config"),
    "scaling.model": (*GROUND, "scaling.config", "scaling.serving"),
    "scaling.training": (*GROUND, "scaling.config", "scaling.serving", "scaling.data", "scaling.model", TASKS),
    "sweeps": (*GROUND, "scaling.config", "scaling.serving", TASKS, *TRAINING),
    "sweeps.plan": (
        *GROUND,
        "scaling.config",
        "scaling.serving",
        TASKS,
        "analysis.latency",
        "analysis.training_speed",
        "sweeps",
    ),
    "sweeps.propose": (*GROUND, "scaling.config", TASKS, *DECISION, "sweeps"),
    "analysis.laws": GROUND,
    "analysis.tables": (*GROUND, "scaling.config", TASKS, "analysis.laws"),
    "analysis.fitting": (*GROUND, "scaling.serving", "analysis.laws", "analysis.tables"),
    "analysis.latency": (*GROUND, "scaling.serving", "analysis.laws", "analysis.tables"),
    "analysis.training_speed": (*GROUND, "scaling.config", "scaling.serving", "analysis.latency", "analysis.tables"),
    "analysis.methods": (*GROUND, "scaling.config", "analysis.laws", "analysis.tables"),
    "analysis.isoflop": (*GROUND, "analysis.laws", "analysis.tables", "analysis.fitting"),
    "analysis.mixture": (
        *GROUND,
        "scaling.serving",
        "analysis.laws",
        "analysis.tables",
        "analysis.fitting",
        "analysis.isoflop",
    ),
    "analysis.decision": (*GROUND, "scaling.config", "scaling.serving", *DECISION, "analysis.isoflop"),
    "analysis.worth": (*GROUND, "scaling.serving", *DECISION, "analysis.training_speed"),
    "analysis.validation": (*GROUND, *DECISION, "analysis.isoflop"),
    "analysis.rates": (*GROUND, "scaling.config", TASKS, "analysis.laws", "analysis.tables", "analysis.fitting"),
    "analysis.returns": (*GROUND, "scaling.config", TASKS, "analysis.laws", "analysis.tables", "analysis.rates"),
    "analysis.figures": (
        *GROUND,
        *DECISION,
        "analysis.isoflop",
        "analysis.methods",
        "analysis.rates",
        "analysis.returns",
        "analysis.worth",
    ),
    "analysis.report": (*GROUND, "scaling.config", "scaling.serving", TASKS, "analysis"),
    "analysis": (),
    "scaling.cli": OURS,
    "scaling.public": OURS,
    "scaling": OURS,
}
ONLY_IN = {
    "ray": "sweeps/ray_executor/",
    "matplotlib": (
        "analysis/figures/",
        "analysis/report/plots/",
        "analysis/decision/answer.py",  # this and the next four for types
        "analysis/worth/worth.py",
        "analysis/rates/rates.py",
        "analysis/returns/comparison.py",
        "analysis/tables/study.py",
    ),
    "typst": "analysis/report/",
    "tensorboardX": "sweeps/loggers/tensorboard.py",
    "wandb": "sweeps/loggers/wandb.py",
    "mlflow": "sweeps/loggers/mlflow.py",
    "datasets": "scaling/data/hub.py",
    "orbax": "scaling/training/checkpoint.py",
    "gymnax": "scaling/tasks/rl/",
}


def modules() -> list[tuple[str, Path]]:
    """Every module of ours by its dotted name."""
    found = []
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imported(path: Path, name: str) -> list[tuple[int, str]]:
    """All that a module imports, functions and type checking included: line and dotted name."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rule_of(name: str) -> str:
    return max((prefix for prefix in MAY_IMPORT if within(name, prefix)), key=len)


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_its_place_allows(name: str, path: Path) -> None:
    rule = rule_of(name)
    allowed = (rule, *MAY_IMPORT[rule])
    for line, target in imported(path, name):
        if target.split(".")[0] in OURS and target not in ("scaling", "scaling.__version__"):
            assert any(within(target, one) for one in allowed), f"{path}:{line}: {name} may not import {target}"


def test_the_face_alone_falls_to_the_rule_of_the_whole_package() -> None:
    assert [name for name, _ in modules() if rule_of(name) == "scaling"] == ["scaling"]


def test_the_rule_itself_has_no_cycle() -> None:
    """Parts in the order of their floors: each may import those before it alone."""
    above = {
        part: {one for one in allowed if one not in GROUND and one != part} for part, allowed in MAY_IMPORT.items()
    }
    for part in GROUND:
        above.pop(part)
    graphlib.TopologicalSorter(above | {"sweeps": above["sweeps"], "analysis.report": {*ANALYSIS}}).prepare()


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {name for name, _ in modules()}
    arrows = {
        name: {t if t in names else t.rpartition(".")[0] for _, t in imported(path, name) if t.split(".")[0] in OURS}
        for name, path in modules()
    }
    graphlib.TopologicalSorter({name: targets - {name} for name, targets in arrows.items()}).prepare()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_place(library: str) -> None:
    for name, path in modules():
        place = str(path.relative_to(ROOT))
        if not place.startswith(ONLY_IN[library]):
            for line, target in imported(path, name):
                assert target.split(".")[0] != library, f"{place}:{line}: {library} belongs in {ONLY_IN[library]}"


@pytest.mark.parametrize("library", ["jax", "flax", "optax"])
def test_training_libraries_stay_with_training(library: str) -> None:
    for name, path in modules():
        if rule_of(name) not in (*ON_JAX, TASKS):
            for line, target in imported(path, name):
                assert target.split(".")[0] != library, f"{path}:{line}: {name} imports {library}"


def run(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_analysis_the_ground_the_tasks_and_the_sweeps_import_without_jax_flax_and_ray() -> None:
    light = [name for name, _ in modules() if rule_of(name) not in ON_JAX]
    blocked = "import sys, importlib; sys.modules |= dict.fromkeys(('jax', 'jaxlib', 'flax', 'optax', 'ray'))\n"
    run(blocked + f"for name in {light!r}: importlib.import_module(name)")


def test_help_imports_nothing_heavy() -> None:
    """`scaling --help` answers in under 0.3 s because of what it does not import."""
    slow = (*HEAVY, "numpy", "pandas", "scipy", "pyarrow", "pydantic", "yaml", "rich", "statsmodels")
    script = (
        "import sys; sys.argv = ['scaling', '--help']\n"
        "from scaling.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('loaded:', sorted(set({slow!r}) & set(sys.modules)))\n"
    )
    assert run(script).splitlines()[-1] == "loaded: []"


def test_a_broken_rule_would_be_seen(tmp_path: Path) -> None:
    """The reader of imports sees every form: plain, from, relative, inside a function."""
    path = tmp_path / "m.py"
    path.write_text(
        "import jax.numpy as jnp\nfrom . import sibling\nfrom ..cost import x\ndef f():\n    from sweeps import grid\n"
    )
    assert [name for _, name in imported(path, "scaling.cli.m")] == [
        "jax.numpy", "scaling.cli.sibling", "scaling.cost.x", "sweeps.grid"
    ]  # fmt: skip
