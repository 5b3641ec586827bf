"""What an environment lacks or sets wrongly: one message with the setting and the remedy, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from scaling.distribution import import_failed
from scaling.training.jax_start import last_words, require_jax

COMMAND = [sys.executable, "-c", "from scaling.cli.main import main; main()"]
BENCH = ["bench", "--d-model", "16", "--batch", "1", "--context", "8", "--repeats", "5"]
BLOCKED = """
import sys
from typer.testing import CliRunner

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"jax", "jaxlib", "flax", "ray", "matplotlib", "typst", "orbax", "datasets"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from scaling.cli.main import app
for words in map(str.split, sys.stdin):
    ended = CliRunner().invoke(app, words)
    print(ended.exit_code, " ".join(ended.output.split()), sep="\\t")
"""
EXTRAS = {
    "bench": "training and measuring needs jax: pip install 'moe-scaling[train]'",
    "sweep run quickstart": "training needs jax: pip install 'moe-scaling[train]'",
    "report .": "the report needs matplotlib and typst: pip install 'moe-scaling[report]'",
    "fit runs.csv --law hoffmann --figure f.png": "a figure needs matplotlib: pip install 'moe-scaling[report]'",
    "latency times.csv --figure f.png": "a figure needs matplotlib: pip install 'moe-scaling[report]'",
    "validate runs.csv --figure f.png": "a figure needs matplotlib: pip install 'moe-scaling[report]'",
}


def started(*words: str, shell: str = "", **settings: str | None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with these settings; `shell` redirects its streams."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    command = ["bash", "-c", f'"$@" {shell}', "bash", *COMMAND, *words] if shell else [*COMMAND, *words]
    kept = {name: value for name, value in environ.items() if value is not None}
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=False)


def test_a_plain_install_names_the_extra() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], input="\n".join(EXTRAS), env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [status for status, _ in found] == ["2"] * len(EXTRAS)
    for (_, message), expected in zip(found, EXTRAS.values(), strict=True):
        assert expected in message


def test_an_optional_package_that_fails_is_told_from_a_defect() -> None:
    lost = import_failed(ModuleNotFoundError("No module named 'typst'", name="typst"))
    assert "typst is not installed: pip install 'moe-scaling[report]'" in str(lost)
    broken = import_failed(ImportError("libcuda.so.1: cannot open", name="jaxlib.xla_extension"))
    assert "jaxlib cannot be imported (libcuda.so.1" in str(broken)
    assert import_failed(ModuleNotFoundError("No module named 'analysis.lost'", name="analysis.lost")) is None


@pytest.mark.parametrize(
    ("setting", "value", "cause"),
    [("XLA_FLAGS", "--xla_no_such_flag=1", "Unknown flag"), ("JAX_PLATFORMS", "nonsense", "nonsense")],
)
def test_a_setting_that_stops_jax_is_named_with_the_cause(setting: str, value: str, cause: str, tmp_path: Path) -> None:
    ended = started(*BENCH, "--out", str(tmp_path / "rows.parquet"), **{setting: value})
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert f"{setting}={value}" in line
    assert cause in line
    assert setting in line.rpartition("unset")[2]


def test_jax_that_runs_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail(f"{jax.__name__} is imported"))
    require_jax()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        (
            "W1129 10:00:00.1 1 a.cc:1] slow\nF1129 10:00:00.1  12 parse.cc:234] Unknown flag: --x\n",
            "Unknown flag: --x",
        ),
        ("Traceback\n  File x\nRuntimeError: no device\n\n", "RuntimeError: no device"),
        ("terminate called\n", "terminate called"),
    ],
)
def test_the_last_words_are_the_line_that_says_why(log: str, words: str) -> None:
    assert last_words(log) == words


def test_output_that_an_encoding_lacks_is_escaped() -> None:
    ended = started("predict", "ü☃.json", "--tokens", "1e9", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ended.returncode == 2
    assert r"\xfc\u2603.json" in ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_no_file(closed: str, tmp_path: Path) -> None:
    """A file that took the place of a closed stream would hold what the command prints."""
    words = ("recommend", "published:chinchilla-epoch", "--train-flops", "1e21", "--no-what-if")
    ended = started(*words, "--out", str(tmp_path / "answer.json"), shell=closed)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "recommendation" in json.loads((tmp_path / "answer.json").read_text())


@pytest.mark.parametrize("columns", ["0", "-5", "1", "x"])
def test_no_width_of_a_terminal_stops_a_command(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from scaling.cli.main import app

    monkeypatch.setenv("COLUMNS", columns)
    assert CliRunner().invoke(app, ["laws"]).exit_code == 0
