"""The report: it says what the analysis says, leaves nothing out, takes any text, and is the same file every time."""

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from reported import drawn_into, quick_checks, section, strings, tables, template_warnings
from synthetic import TRUTH, cells, planted_loss, write_study
from typer.testing import CliRunner

from analysis import laws
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting import bootstrap, fit
from analysis.report import build as reports
from analysis.report.build import build_report
from analysis.report.plots import study as pictures
from analysis.report.plots.study import measured_decode
from analysis.report.study import load_report_study
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from scaling import formatting
from scaling.config import counts
from scaling.errors import InputError, WorkError
from scaling.formatting import si
from scaling.serving import devices
from scaling.serving.service import SERVICE

CONFIGS = cells(experts=(1, 4, 8), widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_checks(monkeypatch)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A study with runs, evaluations and latency, but neither fits nor recommendations."""
    return write_study(tmp_path_factory.mktemp("report") / "planted", configs=CONFIGS)


@pytest.fixture(scope="module")
def joint(bare):
    """A joint fit of it with few draws."""
    table = runs.read_runs(bare)
    return bootstrap.bootstrap(fit.fit(table, laws.law_named("joint-moe")), table, 60, np.random.default_rng(0))


@pytest.fixture
def study(bare, joint, tmp_path):
    """The same study with that fit stored, and a recommendation made from it."""
    folder = shutil.copytree(bare, tmp_path / "planted")
    store(folder / "fits" / "joint-moe.json", joint.to_json())
    store(
        folder / "recommendations" / "joint-moe.json",
        recommend(joint, Question(train_flops=1e13, serve_tokens=1e8)).to_json(),
    )
    return folder


def store(path, document):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def content(folder):
    return reports._content(load_report_study(folder))


def test_the_same_study_gives_the_same_file(study, tmp_path):
    one, two = (build_report(study, tmp_path / name, tmp_path / f"{name}.png") for name in ("a.pdf", "b.pdf"))
    assert one.path.read_bytes().startswith(b"%PDF-")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.picture.read_bytes() == two.picture.read_bytes()
    assert one.notes == ()
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_the_template_compiles_without_a_warning(study, tmp_path):
    assert template_warnings(load_report_study(study), tmp_path) == []


def test_the_front_page_is_the_stored_recommendation(study):
    answer = json.loads((study / "recommendations" / "joint-moe.json").read_text())
    chosen = answer["recommendation"]
    page = content(study)
    tiles = {tile["label"]: tile["value"] for tile in page["tiles"]}
    assert page["decided"] == answer["decided"]
    assert tiles["Experts, E"] == str(chosen["n_experts"])
    assert tiles["Loss, nats/token"] == f"{chosen['loss']:.3f}"
    assert tiles["Lifetime cost, FLOP"] == formatting.flops(chosen["cost"]["total"])
    assert all(reason.lower() in page["because"].lower() for reason in answer["undecided_because"])
    assert page["headline"].startswith("Train" if answer["decided"] else "Not decided")


def test_every_expert_count_is_in_the_table_of_choices(study):
    (choices,) = tables(section(content(study), "The decision in detail"))
    assert [row[0].split()[0] for row in choices["rows"]] == ["dense", "4", "8"]
    assert sum("★" in row[0] for row in choices["rows"]) == 1


def test_the_answer_is_the_planted_one(bare, joint):
    # Independent: brute force over N and D with the planted law itself.
    budget, served = 1e13, 1e8
    sizes = np.geomspace(1e3, 1e8, 400)
    bar = min(planted_loss(n, budget / (6 * n), 1) for n in sizes)
    costs = {}
    for e in (1, 4, 8):
        pairs = [
            (n, d)
            for n in sizes
            for d in np.geomspace(1e5, budget / (6 * n), 200)
            if planted_loss(n, d, e) <= bar * (1 + 1e-9)
        ]
        costs[e] = min(6 * n * d + 2 * n * served for n, d in pairs)
    best = min(costs, key=costs.get)
    found = recommend(joint, Question(train_flops=budget, serve_tokens=served)).recommendation
    assert found.n_experts == best
    low, high = found.cost_interval
    assert low < costs[best] < high
    assert TRUTH["c"] < bar


def test_what_was_left_out_is_told_with_its_reason(study):
    blocks = section(content(study), "What was run")
    assert any("1 run with status diverged" in text for text in strings(blocks))
    (failed,) = tables(blocks)
    (row,) = failed["rows"]
    assert row[4:] == ["diverged", "loss is NaN at step 120"]


def test_every_warning_and_assumption_is_in_the_report(study):
    answer = json.loads((study / "recommendations" / "joint-moe.json").read_text())
    told = " ".join(strings(content(study))).lower()
    for sentence in (*answer["warnings"], *answer["assumptions"]):
        assert sentence.lower() in told


def test_reproduction_names_commands_hashes_and_the_grid(study):
    blocks = section(content(study), "How to reproduce this")
    told = "\n".join(strings(blocks))
    assert "scaling fit planted --law joint-moe --bootstrap 60 --out planted/fits/joint-moe.json" in told
    assert "--train-flops 10000000000000 --serve-tokens 100000000" in told
    assert "synthetic00000000" in told
    assert (study / "grid.yaml").read_text().strip() in told


def test_measured_times_stand_beside_their_floors(study):
    blocks = section(content(study), "What serving costs")
    timing = tables(blocks)[1]
    assert len(timing["rows"]) == 3 * 2
    assert [row[4:6] for row in timing["rows"] if row[1] == "1"] == [["–", "–"]] * 3
    ratios = [float(row[5]) for row in timing["rows"] if row[1] != "1"]
    assert min(ratios) >= 1  # a measurement cannot beat the floor it was planted above
    told = " ".join(strings(blocks))
    assert "6 of the 24 times have no known floor" in told  # E = 1, 4, 8 and two phases at batch 1
    assert "untrained weights" in told


def test_without_any_floor_the_report_says_so(study, tmp_path):
    document = load_report_study(study)
    bare = replace(document, latency=document.latency.assign(roofline_ms=np.nan))
    told = " ".join(strings(section(reports._content(bare), "What serving costs")))
    assert "No floor is known" in told
    reports._draw(bare, tmp_path)


def test_the_counts_of_serving_are_those_of_the_structure(study):
    counted = tables(section(content(study), "What serving costs"))[0]
    largest = {config.model.n_experts: config for config in CONFIGS if config.model.d_model == 64}
    assert [row[0] for row in counted["rows"]] == ["dense", "4", "8"]
    for row, config in zip(counted["rows"], (largest[1], largest[4], largest[8]), strict=True):
        model, vocab, context = config.model, config.data.vocab_size, config.train.seq_len
        assert row[3:] == [
            si(counts.prefill_flops_per_token(model, vocab, context)),
            si(counts.decode_flops_per_token(model, vocab, context)),
            si(counts.weight_bytes(model, vocab)),
            si(counts.kv_bytes_per_token(model)),
        ]


def test_a_cost_in_flops_says_what_it_leaves_out_and_what_was_measured(study, joint):
    page = content(study)
    taken = " ".join(strings(section(page, "Assumptions and warnings")))
    assert "FLOPs price neither memory nor the bytes" in taken
    (hero,) = [block for block in page["summary"] if block["kind"] == "figure"]
    assert "at batch 64" in hero["caption"]
    assert "not in the cost" in hero["caption"]
    priced = recommend(joint, Question(target_loss=1.6, serve_tokens=1e10, device="h100"))
    store(study / "recommendations" / "joint-moe.json", priced.to_json())
    blocks = section(content(study), "Assumptions and warnings")
    assert "price neither memory" not in " ".join(strings(blocks))
    assert "The CPU has no data sheet here" in " ".join(strings(blocks))


def test_the_picture_has_a_panel_of_measured_times_only_where_there_are_some(study):
    document = load_report_study(study)
    with_times, without = pictures.hero(document), pictures.hero(replace(document, latency=document.latency.iloc[:0]))
    titles = [[ax.get_title(loc="left") for ax in page.axes] for page in (with_times, without)]
    assert titles[0] == [*titles[1], "What serving it measured"]
    shown = measured_decode(document)
    assert list(shown["n_experts"]) == [1, 4, 8]
    assert set(shown["batch"]) == {64}
    assert set(shown["n_active"]) == {document.table.frame["n_active"].max()}


# A device whose decode takes as long as planted, and one that is ten times as fast.
@pytest.mark.parametrize(("faster", "warned"), [(1.0, False), (10.0, True)])
def test_prices_on_a_measured_device_are_held_against_the_measurement(study, joint, monkeypatch, faster, warned):
    # Planted: 0.06 ms + 1.7 times the roofline of 20 GB/s and 100 GFLOP/s. The price takes shares of the peaks, and
    # overlaps reading and computing as a roofline does.
    speed = faster / 1.7
    planted = replace(
        devices.device("h100"), name="cpu", title="planted CPU", bandwidth=20e9 * speed / SERVICE.efficiency.bandwidth_share,
        peak_flops=100e9 * speed / SERVICE.efficiency.flops_share,
    )  # fmt: skip
    monkeypatch.setattr(devices, "calibrate_cpu", lambda: planted)
    asked = Question(target_loss=1.6, serve_tokens=1e10, device="cpu", service=replace(SERVICE, overlap=True))
    store(study / "recommendations" / "joint-moe.json", recommend(joint, asked).to_json())
    page = content(study)
    *_, table = tables(section(page, "What serving costs"))
    assert table["columns"][-1] == "measured/priced"
    assert len(table["rows"]) == 3 * 4  # E = 1, 4, 8 at four batches
    largest = [float(row[-1]) for row in table["rows"] if row[1] == "64"]
    np.testing.assert_allclose(largest, faster, rtol=0.25)  # the overhead and the spread are beside the roofline
    told = " ".join(strings(section(page, "Assumptions and warnings")))
    assert ("`scaling latency` measures what a device reaches" in told) == warned


def test_a_price_on_a_device_that_was_not_measured_is_held_against_nothing(study, joint):
    priced = recommend(joint, Question(target_loss=1.6, serve_tokens=1e10, device="h100"))
    store(study / "recommendations" / "joint-moe.json", priced.to_json())
    assert "measured/priced" not in str(content(study))


def test_every_expert_count_has_its_difference_with_a_95_percent_interval(study):
    document = load_report_study(study)
    told = section(content(study), "What experts do")[0]["text"]
    rows = document.effects.rows
    rows = rows[(rows["n_active"] == rows["n_active"].max()) & (rows["tokens"] == rows["tokens"].max())]
    assert set(rows["n_experts"]) == {4, 8}
    for _, row in rows.iterrows():
        assert (
            f"E = {row['n_experts']}: {formatting.number(row['difference'], '+.3f')} ± {1.96 * row['se']:.3f}" in told
        )
    assert "best" not in told


def test_routed_runs_that_pair_with_nothing_are_counted(study):
    assert "Left out" not in section(content(study), "What experts do")[0]["text"]
    first, *_, last = load_report_study(study).effects.rows.to_dict("records")
    (study / "runs" / f"{last['dense_run_id']}.parquet").unlink()  # the twin of E = 4 and of E = 8
    (study / "evals" / f"{first['run_id']}.parquet").unlink()
    told = section(content(study), "What experts do")[0]["text"]
    assert (
        "Left out: 2 routed runs without a dense twin and 1 routed run whose twin was evaluated on other tokens" in told
    )


def test_draws_in_which_an_expert_count_cannot_answer_are_in_the_table(study):
    path = study / "recommendations" / "joint-moe.json"
    answer = json.loads(path.read_text())
    for choice in (answer["recommendation"], *answer["alternatives"]):
        choice["unanswered"] = choice["n_experts"] / 100
    store(path, answer)
    (choices,) = tables(section(content(study), "The decision in detail"))
    assert choices["columns"][-1] == "no answer in"
    assert [row[-1] for row in choices["rows"]] == ["1%", "4%", "8%"]
    assert "the mean over the draws in which this E can answer" in choices["caption"]


def test_the_first_recommendation_decides_and_all_are_shown(study, joint):
    other = recommend(joint, Question(target_loss=1.6, serve_tokens=1e9)).to_json()
    store(study / "recommendations" / "a-target.json", other)
    page = content(study)
    assert "reaches a loss of 1.600" in page["summary"][0]["text"]
    assert len(tables(section(page, "The decision in detail"))) == 2


@pytest.mark.parametrize("asked", [{"train_flops": 1e13}, {"target_loss": 1.6, "serve_tokens": 1e10, "device": "h100"}])
def test_other_questions_make_a_report_too(study, joint, tmp_path, asked):
    store(study / "recommendations" / "joint-moe.json", recommend(joint, Question(**asked)).to_json())
    assert build_report(study, tmp_path / "r.pdf").path.is_file()
    told = " ".join(strings(content(study)))
    assert ("H100" in told and "placeholder" in told) == ("device" in asked)


def test_a_folder_without_fits_says_that_they_were_made_here(bare, tmp_path):
    made = build_report(bare, tmp_path / "r.pdf")
    assert any("no fits" in note for note in made.notes)
    assert any("no recommendation" in note for note in made.notes)
    assert not (bare / "fits").exists()


def test_text_is_data_and_never_markup(study, tmp_path):
    hostile = '#panic("spliced") $x$ *b* _i_ \\ [ ] @ref <label> // \u202e 日本語 ' + "long" * 60
    document = load_report_study(study)
    hurt = replace(document, failed=document.failed.assign(error=hostile), grid=hostile + "\n" + hostile, name=hostile)
    assert hostile.strip()[:100] in " ".join(strings(reports._content(hurt)))
    drawn_into(hurt, tmp_path)
    assert reports._compile(tmp_path, reports._made_at(hurt)).startswith(b"%PDF-")


def test_runs_alone_are_enough(study, tmp_path):
    for name in ("evals", "curves", "latency"):
        shutil.rmtree(study / name)
    (study / "grid.yaml").unlink()
    assert build_report(study, tmp_path / "r.pdf").path.is_file()
    page = content(study)
    assert "No latency was measured in this study." in strings(section(page, "What serving costs"))
    assert any("No routed run" in text for text in strings(section(page, "What experts do")))


def test_an_imported_table_of_dense_runs_makes_a_report(tmp_path):
    rng = np.random.default_rng(0)
    size, tokens = (np.exp(rng.uniform(*np.log(ends), 60)) for ends in ((1e7, 1e9), (1e9, 1e11)))
    loss = (1.8 + 480 / size**0.35 + 2100 / tokens**0.37) * np.exp(rng.normal(0, 0.003, 60))
    rows = ["n_active,tokens,loss_val", *(f"{n},{d},{y}" for n, d, y in zip(size, tokens, loss, strict=True))]
    (tmp_path / "theirs.csv").write_text("\n".join(rows))
    import_runs(tmp_path / "theirs.csv", tmp_path / "theirs")
    made = build_report(tmp_path / "theirs", tmp_path / "r.pdf")
    assert any("shown as dense" in note for note in made.notes)
    assert "hoffmann" in made.notes[1]


def test_a_broken_recommendation_is_named(study):
    (study / "recommendations" / "joint-moe.json").write_text("{")
    with pytest.raises(InputError, match=r"joint-moe\.json: not JSON"):
        load_report_study(study)
    store(study / "recommendations" / "joint-moe.json", {"law": "joint-moe"})
    with pytest.raises(InputError, match="not a recommendation: no recommendation, question, decided"):
        load_report_study(study)


def test_missing_packages_are_named_with_the_remedy(study, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "typst" else found(name))
    with pytest.raises(InputError, match=r"needs typst; install with: pip install 'scaling\[report\]'"):
        build_report(study, tmp_path / "r.pdf")


def test_other_names_than_pdf_are_refused(study, tmp_path):
    with pytest.raises(InputError, match=r"--out .*r\.html.*\.pdf"):
        build_report(study, tmp_path / "r.html")
    with pytest.raises(InputError, match=r"--picture .*p\.gif.*\.png"):
        build_report(study, tmp_path / "r.pdf", tmp_path / "p.gif")


def test_a_template_that_fails_is_failed_work(tmp_path):
    (tmp_path / "report.typ").write_text('#panic("no")')
    with pytest.raises(WorkError, match="typst could not make the report"):
        reports._compile(tmp_path, reports.datetime(2026, 1, 1))


def test_the_command(study, tmp_path):
    from scaling.cli.main import app

    done = CliRunner().invoke(app, ["report", str(study), "--out", str(tmp_path / "r.pdf"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"report": str(tmp_path / "r.pdf"), "picture": None, "notes": []}
    assert (tmp_path / "r.pdf").is_file()
    wrong = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert wrong.exit_code == 2
    assert "nowhere" in wrong.stderr


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0.0, "0%"), (0.001, "< 1%"), (0.28, "28%"), (0.9999, "> 99%"), (1.0, "100%")]
)
def test_shares_are_not_rounded_to_certainty(share, text):
    assert formatting.percent(share) == text


def test_numbers_carry_a_true_minus_sign_and_powers_of_ten():
    assert [formatting.number(v) for v in (-0.4793, 0.0, 2.5e15, 3e-7)] == ["−0.4793", "0", "2.5×10¹⁵", "3×10⁻⁷"]
    assert formatting.number(-0.0382, "+.3f") == "−0.038"
