"""The code version of a row: a hash of the sources that shape a training, and no others."""

import shutil
from pathlib import Path

import scaling
from scaling.config.run_row import code_version, training_sources

ROOT = Path(__file__).parents[2]


def test_the_sources_come_from_the_folders_that_shape_a_training():
    sources = {path.relative_to(ROOT) for path in training_sources()}
    assert {path.parts[1] for path in sources} == {"expert_rows.py", "config", "data", "model", "training"}
    assert Path("scaling/model/moe/routers/token_choice.py") in sources
    assert Path("scaling/training/inference_bench.py") not in sources  # it measures


def test_only_edits_of_training_code_change_the_version(tmp_path, monkeypatch):
    for package in ("scaling", "sweeps", "analysis"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(scaling, "__file__", str(tmp_path / "scaling" / "__init__.py"))

    def version_after_an_edit(name):
        path = tmp_path / name
        path.write_text(path.read_text() + "# edited\n")
        return code_version.__wrapped__()  # without its cache

    version = code_version.__wrapped__()
    for name in ("scaling/serving/steps.py", "scaling/cli/sweeps/sweep.py", "sweeps/store.py", "analysis/laws/moe.py"):
        assert version_after_an_edit(name) == version
    for name in ("scaling/config/run.py", "scaling/model/transformer.py", "scaling/training/step.py"):
        before, version = version, version_after_an_edit(name)
        assert version != before
