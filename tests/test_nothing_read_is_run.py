"""What we read from studies, tables, fits and caches is data: no code of ours can run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = sorted(path for package in ("scaling", "sweeps", "analysis") for path in (ROOT / package).rglob("*.py"))
UNPICKLES = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "torch"}
RUNS = {"eval", "exec", "compile", "__import__"}
RUNS_AS_METHOD = {"read_pickle", "to_pickle", "eval", "query", "load_source", "exec_module"}
# Programs in a folder that this user alone can write to: scaling/data/own_folder.py and its tests.
TRUSTED = "scaling/training/executable_cache.py"


def doubts(path: Path) -> list[str]:
    """The places of a module that could run what is read."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        found += [f"{path}:{node.lineno}: imports {name}" for name in names if name in UNPICKLES]
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in RUNS:
                found.append(f"{path}:{node.lineno}: {called.id}")
            if isinstance(called, ast.Attribute) and called.attr in RUNS_AS_METHOD:
                found.append(f"{path}:{node.lineno}: .{called.attr}")
            if isinstance(called, ast.Attribute) and ast.unparse(called) in (
                "yaml.load",
                "yaml.unsafe_load",
                "os.system",
                "os.popen",
            ):
                found.append(f"{path}:{node.lineno}: {ast.unparse(called)}")
            found += [
                f"{path}:{node.lineno}: {word.arg}={ast.unparse(word.value)}"
                for word in node.keywords
                if word.arg in ("allow_pickle", "shell", "trust_remote_code", "weights_only")
            ]
    return found


def test_no_module_runs_what_it_reads() -> None:
    found = [doubt for path in OURS for doubt in doubts(path)]
    assert len(OURS) > 150
    assert [doubt for doubt in found if TRUSTED not in doubt] == []
    assert len(found) == 1, "the cache of programs unpickles, and only there"


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from dill import loads", "eval(x)", "frame.query(x)", "np.load(x, allow_pickle=True)",
     "yaml.load(x)", "subprocess.run(x, shell=True)", "pd.read_pickle(x)"],
)  # fmt: skip
def test_the_search_finds_each(code: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    assert len(doubts(tmp_path / "module.py")) == 1


def test_the_template_of_the_report_evaluates_formulas_of_laws_alone() -> None:
    """Their text stands in our code: no file names a formula."""
    template = (ROOT / "analysis/report/report.typ").read_text(encoding="utf-8")
    assert re.findall(r"\beval\(([^)]*)\)", template) == ['b.text, mode: "math"']
    assert not re.search(r"#import|#include|\bplugin\(|\bread\(|@preview", template)
    report = [path for path in OURS if "report" in path.parts]
    makers = [path.name for path in report if re.search(r"\bformula\(|\"math\"", path.read_text(encoding="utf-8"))]
    assert makers == ["blocks.py", "law.py"]
    uses = (ROOT / "analysis/report/sections/law.py").read_text(encoding="utf-8")
    assert re.findall(r"formula\(([^)]*)\)", uses) == ["fit.definition.typst"]
