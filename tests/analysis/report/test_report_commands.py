"""The commands that a report prints, run again: they write what is there already, to the last digit."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.fitting.published import published
from analysis.latency.table import read_latency
from analysis.report.sections.commands import commands
from analysis.report.study import load_report_study
from analysis.report.subject import read_subject
from scaling.cli.main import app

JOINT = "published:joint-moe-2025"
BUDGET = ("--train-flops", "1e21")
ON_H100 = (*BUDGET, "--device", "h100", "--serve-tokens", "1e11")
# What is asked, each with options that nothing else in the answer's numbers tells.
ASKED = {
    "flops": (JOINT, *BUDGET, "--n-experts", "1,8", "--serve-tokens", "3e10", "--data-tokens", "1e12"),
    "reference": (JOINT, *BUDGET, "--serve-tokens", "1e11", "--reference-model", "2.5e9,1e11"),
    "allocation": (JOINT, *BUDGET, "--serve-tokens", "1e11", "--reference-fit", "published:chinchilla-epoch"),
    "speed": (JOINT, *ON_H100, "--training-speed", "published:megablocks-57", "--tpot-ms", "33.3", "--skew", "0.3"),
    "assumed": (JOINT, *ON_H100, "--speed", "assumed", "--training-speed", "constant", "--mfu", "0.37"),
    "shares": (JOINT, *ON_H100, "--flops-share", "0.4", "--prompt", "1000", "--reads-all", "--n-experts", "1,8"),
    "formats": (JOINT, *ON_H100, "--weights", "fp8", "--experts-in", "bf16", "--kv", "int8", "--apart"),
    "shapes": ("published:leverage-2025", *BUDGET, "--family", "deepseek", "--top-k", "2,8", "--shared", "1"),
    "rivals": ("worse.json", *BUDGET, "--rival", JOINT, "--n-experts", "1,4"),
}


def run(command: str | list[str]) -> None:
    words = shlex.split(command)[1:] if isinstance(command, str) else command
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{words}: {result.output}"


def document(path: Path) -> dict[str, object]:
    """An answer without the names it was asked with, which may say in other words what was not said at first."""
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "asked"}


@pytest.mark.parametrize("case", ASKED)
def test_the_command_of_an_answer_gives_the_answer(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    law = published("joint-moe-2025")
    worse = {"law": law.law, "params": {**law.params, "c": law.params["c"] + 0.1}}
    Path("worse.json").write_text(json.dumps(worse))
    run(["recommend", *ASKED[case], "--no-what-if", "--out", "first.json"])
    asked, report = commands(read_subject(Path("first.json")))
    assert report == "scaling report first.json --out report.pdf"
    before = document(Path("first.json"))
    Path("first.json").unlink()
    run(asked)
    assert document(Path("first.json")) == before


@pytest.mark.parametrize(
    ("law", "how"),
    [
        ("joint-moe", ("--where", "n_experts in [1, 8] or d_model > 40", "--seed", "3", "--drop-highest-loss", "1")),
        ("hoffmann", ("--pin", "E=1.2", "--objective", "asymmetric", "--delta", ".01", "--where", "n_experts == 1")),
        ("", ("--from", JOINT, "--map", "loss_val=loss_val*1.01")),
    ],
)
def test_the_commands_of_a_study_write_its_files_again(
    law: str, how: tuple[str, ...], bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bare, "planted")
    fitted = ["--law", law, "--starts", "8"] if law else []
    run(["fit", "planted", *fitted, "--bootstrap", "6", *how, "--out", "planted/fits/mine.json"])
    answer = "planted/recommendations/mine.json"
    options = ("--train-flops", "1e13", "--device", "h100", "--training-speed", "published:megablocks-57")
    run(["recommend", "planted/fits/mine.json", *options, "--no-what-if", "--out", answer])
    fit, found = Path("planted/fits/mine.json"), Path(answer)
    before = fit.read_text(), document(found)
    printed = commands(load_report_study(Path("planted")))
    assert [line.split()[1] for line in printed] == ["sweep", "fit", "recommend", "report"]
    fit.unlink()
    found.unlink()
    for line in printed[1:3]:
        run(line)
    assert (fit.read_text(), document(found)) == before


@pytest.mark.parametrize("alone", [False, True])
def test_the_commands_of_a_measured_price_write_its_latency_law_again(
    alone: bool, answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(answered, "planted")
    shutil.rmtree("planted/recommendations")
    source, file = "planted", Path("planted/latency.json")
    if alone:  # times in a file of their own, as `scaling bench --out` writes them
        source = "planted/bench.parquet"
        read_latency("planted").frame.to_parquet(source)
    chosen = ("--where", "context < 8192 or batch < 8", "--map", "time_ms=time_ms*2", "--resamples", "200")
    run(["latency", source, *chosen, "--seed", "3", "--out", str(file)])
    money = ("--serve-tokens", "1e6", "--training-speed", "constant", "--mfu", "0.4", "--usd-per-hour", "1")
    options = ("--train-flops", "1e13", *money, "--device", "cpu", "--latency", str(file), "--no-what-if")
    run(["recommend", "planted/fits/joint-moe.json", *options, "--out", "planted/recommendations/mine.json"])
    before = file.read_text()
    printed = commands(load_report_study(Path("planted")))
    (line,) = [line for line in printed if line.startswith("scaling latency")]
    file.unlink()
    run(line)
    assert file.read_text() == before


def test_an_answer_beside_a_study_is_named_with_its_fit(
    answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(answered, "planted")
    run(["recommend", JOINT, *BUDGET, "--no-what-if", "--out", "apart.json"])
    study = load_report_study(Path("planted"), Path("apart.json"), JOINT)
    assert commands(study)[1:] == [
        f"scaling recommend {JOINT} --train-flops 1e+21 --no-what-if --out apart.json",
        f"scaling report planted --answer apart.json --fit {JOINT} --out report.pdf",
    ]
