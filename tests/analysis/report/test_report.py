"""The report: it says what the analysis says, leaves nothing out, takes any text, and is the same file every time."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from reported import altered, column, section, store, tables, template_warnings, words
from synthetic import TRUTH, planted_loss
from typer.testing import CliRunner

from analysis.decision.answer import Answer
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.methods.dense_twins import paired_effects
from analysis.report import measured
from analysis.report.blocks import typeset
from analysis.report.build import build_report, compile_pdf
from analysis.report.contents import content, made_at, write_contents
from analysis.report.plots import decision as decision_plots
from analysis.report.plots import study as study_plots
from analysis.report.sections import decision
from analysis.report.study import load_report_study
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from scaling import formatting
from scaling.config import counts
from scaling.errors import InputError, WorkError
from scaling.formatting import si
from scaling.serving import devices
from scaling.serving.service import SERVICE
from scaling.values import plain


@pytest.fixture
def study(answered, tmp_path):
    """A copy of the study with its fit and answer, to be changed."""
    return shutil.copytree(answered, tmp_path / "planted")


def with_question(loaded, joint, question, **changes):
    """The study with the answer to another question."""
    return replace(loaded, answers={"joint-moe": Answer(recommend(joint, question))}, **changes)


def test_the_same_study_gives_the_same_file(answered, tmp_path):
    one, two = (build_report(answered, tmp_path / name, tmp_path / f"{name}.png") for name in ("a.pdf", "b.pdf"))
    assert one.path.read_bytes().startswith(b"%PDF-")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.picture.read_bytes() == two.picture.read_bytes()
    assert one.notes == ()
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_the_template_compiles_without_a_warning(loaded, tmp_path):
    assert template_warnings(loaded, tmp_path) == []


def test_the_front_page_is_the_stored_recommendation(page, answer):
    chosen = answer.best
    tiles = {tile["label"]: tile["value"] for tile in page["tiles"]}
    assert tiles == {
        "Experts, E": str(chosen.n_experts),
        "Active parameters": si(chosen.n_active),
        "Total parameters": si(chosen.n_total),
        "Training tokens": si(chosen.tokens),
        "Loss, nats/token": f"{chosen.loss:.3f}",
        "Lifetime cost, FLOP": formatting.flops(chosen.cost.total),
        "Best in": formatting.percent(chosen.probability_best),
    }


@pytest.mark.parametrize("reasons", [(), ("there are few trunks", "E = 8 is at an edge")])
def test_the_front_page_is_decided_or_gives_every_reason(loaded, answer, reasons):
    changed = altered(answer, decided=not reasons, undecided_because=reasons)
    page = decision.front_page(replace(loaded, answers={"a": changed}))
    best = formatting.experts(answer.best.n_experts)
    model = (
        f"{si(answer.best.n_active)} active parameters on {si(answer.best.tokens)} tokens, by FLOPs and not by money"
    )
    assert page["decided"] == (not reasons)
    if reasons:
        assert page["headline"] == f"Not decided; {best} leads: {model}"
        assert page["because"] == "There are few trunks. E = 8 is at an edge."
    else:
        assert page["headline"] == f"Train {best}: {model}"
        assert f"of {answer.recommendation.n_draws} draws" in page["because"]


def test_every_expert_count_is_in_the_table_of_choices_with_the_parts_of_its_cost(page, answer):
    (choices,) = tables(section(page, "The decision in detail"))
    shown = [answer.best, *answer.recommendation.alternatives]
    first, *others = column(choices, "E")
    assert [first.removesuffix(" ★"), *others] == [str(choice.n_experts) for choice in shown]
    assert first.endswith("★")
    for name, part in (("to train", "train"), ("to serve", "serve"), ("cost", "total")):
        costs = [formatting.flops(getattr(choice.cost, part)) for choice in shown]
        assert column(choices, f"{name} (FLOP)") == costs
    assert column(choices, "tokens") == [si(choice.tokens) for choice in shown]
    assert column(choices, "95% interval") == [formatting.between(c.loss_interval, formatting.loss) for c in shown]


def test_the_answer_is_the_planted_one(joint):
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
        costs[e] = min(6 * n * d + 2 * n * 3 * served for n, d in pairs)  # two prompt tokens for each of output
    best = min(costs, key=costs.get)
    found = recommend(joint, Question(train_flops=budget, serve_tokens=served)).recommendation
    assert found.n_experts == best
    low, high = found.cost_interval
    assert low < costs[best] < high
    assert TRUTH["c"] < bar


def test_what_was_left_out_is_reported_with_its_reason(page, loaded):
    blocks = section(page, "What was run")
    assert loaded.table.dropped == (("status diverged", 1),)
    assert "status diverged" in words(blocks)
    (failed,) = tables(blocks)
    assert column(failed, "status") == ["diverged"]
    assert column(failed, "error") == ["loss is NaN at step 120"]


def test_only_numbers_as_python_writes_them_are_typeset():
    assert typeset("study 1e5 of `n_active` 2.4e+03, 1e-04 and 5`6") == "study 1e5 of n_active 2400, 0.0001 and 5`6"


def test_every_warning_and_assumption_is_in_the_report(page, answer):
    printed = words(page).lower()
    lines = (*answer.recommendation.warnings, *answer.recommendation.assumptions)
    assert answer.recommendation.warnings
    assert answer.recommendation.assumptions
    assert all(typeset(line).lower() in printed for line in lines)


def test_reproduction_names_commands_hashes_and_the_grid(page, loaded):
    commands, facts, _, grid = section(page, "How to reproduce this")
    assert commands["text"].splitlines() == [
        "scaling sweep run planted/grid.yaml --out planted",
        "scaling fit planted --law joint-moe --bootstrap 60 --out planted/fits/joint-moe.json",
        "scaling recommend planted/fits/joint-moe.json --train-flops 10000000000000 --serve-tokens 100000000 "
        "--out planted/recommendations/joint-moe.json",
        "scaling report planted --out report.pdf",
    ]
    assert dict(facts["rows"])["corpus_hash"] == "synthetic00000000"
    assert grid["text"] == loaded.grid.strip()


def test_measured_times_are_beside_their_floors(page):
    timing = tables(section(page, "What serving costs"))[1]
    at_one = [batch == "1" for batch in column(timing, "batch")]
    assert len(at_one) == 3 * 4, "E = 1, 4, 8 at four batches"
    floors, ratios = column(timing, "floor, ms"), column(timing, "median/floor")
    assert [floor == "–" for floor in floors] == at_one
    assert [ratio == "–" for ratio in ratios] == at_one
    # A measurement cannot beat the floor it was planted above.
    assert min(float(ratio) for ratio, single in zip(ratios, at_one, strict=True) if not single) >= 1


def test_times_without_a_floor_are_counted(loaded):
    def caption(study):
        figures = (block for block in section(content(study), "What serving costs") if block["kind"] == "figure")
        return next(figures)["caption"]

    assert "6 of the 24 times have no known floor" in caption(loaded)  # E = 1, 4, 8 and two phases at batch 1
    bare = replace(loaded, latency=loaded.latency.assign(roofline_ms=np.nan))
    assert "No floor is known" in caption(bare)
    assert study_plots.latency(bare).axes


def test_times_of_which_nobody_says_how_they_were_measured_have_a_page(loaded):
    unknown = loaded.latency.assign(platform=None, dtype=None, threads=np.nan, repeats=np.nan)
    stated, silent = (
        tables(section(content(one), "What serving costs"))[1] for one in (loaded, replace(loaded, latency=unknown))
    )
    assert column(silent, "median, ms") == column(stated, "median, ms")


def test_the_counts_of_serving_are_those_of_the_structure(page, configs):
    counted = tables(section(page, "What serving costs"))[0]
    largest = {config.model.n_experts: config for config in configs if config.model.d_model == 64}
    assert column(counted, "E") == ["dense", "4", "8"]
    for row, config in zip(counted["rows"], (largest[1], largest[4], largest[8]), strict=True):
        model, vocab, context = config.model, config.data.vocab_size, config.train.seq_len
        assert row[3:] == [
            si(counts.prefill_flops_per_token(model, vocab, context)),
            si(counts.decode_flops_per_token(model, vocab, context)),
            si(counts.weight_bytes(model, vocab)),
            si(counts.kv_bytes_per_token(model)),
        ]


def test_a_cost_in_flops_says_what_it_leaves_out_and_what_was_measured(page, loaded, joint):
    assert "FLOPs price neither memory nor the bytes" in words(section(page, "Assumptions and warnings"))
    (hero,) = [block for block in page["summary"] if block["kind"] == "figure"]
    assert "at batch 64" in hero["caption"]
    assert "not in the cost" in hero["caption"]
    priced = content(with_question(loaded, joint, Question(target_loss=1.6, serve_tokens=1e10, device="h100")))
    assert "price neither memory" not in words(section(priced, "Assumptions and warnings"))


def test_the_picture_has_a_panel_of_measured_times_only_where_there_are_some(loaded):
    with_times, without = (
        decision_plots.hero(loaded),
        decision_plots.hero(replace(loaded, latency=loaded.latency.iloc[:0])),
    )
    assert len(with_times.axes) == len(without.axes) + 1
    shown = measured.measured_decode(loaded.latency)
    assert list(shown["n_experts"]) == [1, 4, 8]
    assert set(shown["batch"]) == {64}
    assert set(shown["n_active"]) == {loaded.table.frame["n_active"].max()}


# A device whose decode takes as long as planted, and one that is ten times as fast.
@pytest.mark.parametrize(("faster", "warned"), [(1.0, False), (10.0, True)])
def test_prices_on_a_measured_device_are_compared_with_the_measurement(loaded, joint, monkeypatch, faster, warned):
    # Planted: 0.06 ms + 1.7 times the roofline of 20 GB/s and 100 GFLOP/s. The price takes shares of the peaks, and
    # overlaps reading and computing as a roofline does.
    speed = faster / 1.7
    planted = replace(
        devices.device("h100"),
        name="cpu",
        title="planted CPU",
        bandwidth=20e9 * speed / SERVICE.efficiency.bandwidth_share,
        peak_flops=100e9 * speed / SERVICE.efficiency.flops_share,
    )
    monkeypatch.setattr(devices, "calibrate_cpu", lambda: planted)
    asked = Question(target_loss=1.6, serve_tokens=1e10, device="cpu", service=replace(SERVICE, overlap=True))
    page = content(with_question(loaded, joint, asked))
    table = next(t for t in tables(section(page, "What serving costs")) if "priced, ms" in t["columns"])
    rows = zip(*(column(table, name) for name in ("batch", "median, ms", "priced, ms")), strict=True)
    largest = [float(median) / float(price) for batch, median, price in rows if batch == "64"]
    assert len(table["rows"]) == 3 * 4  # E = 1, 4, 8 at four batches
    np.testing.assert_allclose(largest, faster, rtol=0.25)  # the overhead and the spread are beside the roofline
    advice = "scaling latency measures what a device reaches"
    assert (advice in words(section(page, "Assumptions and warnings"))) == warned


def test_a_price_on_a_device_that_was_not_measured_is_compared_with_nothing(loaded, joint, tmp_path):
    priced = with_question(loaded, joint, Question(target_loss=1.6, serve_tokens=1e10, device="h100"))
    page = content(priced)
    assert not any("priced, ms" in table["columns"] for table in tables(section(page, "What serving costs")))
    assert "H100" in words(section(page, "Assumptions and warnings"))
    assert template_warnings(priced, tmp_path) == []


def test_every_expert_count_has_its_difference_with_a_95_percent_interval(page, loaded):
    effect = section(page, "What experts do")[0]["text"]
    rows = loaded.effects.rows
    rows = rows[(rows["n_active"] == rows["n_active"].max()) & (rows["tokens"] == rows["tokens"].max())]
    assert set(rows["n_experts"]) == {4, 8}
    for _, row in rows.iterrows():
        difference = f"{formatting.number(row['difference'], '+.3f')} ± {1.96 * row['se']:.3f}"
        assert f"E = {row['n_experts']}: {difference}" in effect


def test_routed_runs_that_pair_with_nothing_are_counted(study, loaded, page):
    assert "Left out" not in section(page, "What experts do")[0]["text"]
    first, *_, last = loaded.effects.rows.to_dict("records")
    (study / "runs" / f"{last['dense_run_id']}.parquet").unlink()  # the twin of E = 4 and of E = 8
    (study / "evals" / f"{first['run_id']}.parquet").unlink()
    effects = paired_effects(study, runs.read_runs(study).frame)
    assert (effects.without_twin, effects.not_comparable) == (2, 1)
    effect = section(content(replace(loaded, effects=effects)), "What experts do")[0]["text"]
    assert "Left out: 2 routed runs without a dense twin and 1 routed run whose twin" in effect


def test_draws_in_which_an_expert_count_cannot_answer_are_in_the_table(loaded, answer):
    unanswered = {1: 0.0, 4: 0.3, 8: 0.004}

    def doubtful(choice):
        return replace(choice, unanswered=unanswered[choice.n_experts])

    found = answer.recommendation
    hurt = altered(answer, recommendation=doubtful(answer.best), alternatives=tuple(map(doubtful, found.alternatives)))
    (choices,) = tables(decision.decision(replace(loaded, answers={"a": hurt})))
    shares = dict(
        zip(
            (int(e.removesuffix(" ★")) for e in column(choices, "E")),
            column(choices, choices["columns"][-1]),
            strict=True,
        )
    )
    assert shares == {1: "0%", 4: "30%", 8: "< 1%"}


def test_the_first_recommendation_decides_and_all_are_shown(study, joint):
    other = plain(recommend(joint, Question(target_loss=1.6, serve_tokens=1e9)))
    store(study / "recommendations" / "a-target.json", other)
    document = load_report_study(study)
    assert list(document.answers) == ["a-target", "joint-moe"]
    assert document.decision.question.target_loss == 1.6
    assert len(tables(section(content(document), "The decision in detail"))) == 2


def test_a_question_of_the_least_loss_makes_a_report_too(loaded, joint, tmp_path):
    assert template_warnings(with_question(loaded, joint, Question(train_flops=1e13)), tmp_path) == []


def test_a_folder_without_fits_says_that_they_were_made_here(bare, tmp_path):
    written = build_report(bare, tmp_path / "r.pdf")
    assert any("no fits" in note for note in written.notes)
    (asked,) = [note for note in written.notes if "no recommendation" in note]
    assert "in FLOPs, as no device is named" in asked
    assert "lack" not in asked  # its runs have all that a price needs
    assert not (bare / "fits").exists()


def test_text_is_data_and_never_markup(loaded, tmp_path):
    hostile = '#panic("spliced") $x$ *b* _i_ \\ [ ] @ref <label> // \u202e 日本語 ' + "long" * 60
    hurt = replace(loaded, failed=loaded.failed.assign(error=hostile), grid=hostile + "\n" + hostile, name=hostile)
    assert hostile.strip()[:100] in words(content(hurt))
    write_contents(hurt, tmp_path)
    assert compile_pdf(tmp_path, made_at(hurt)).startswith(b"%PDF-")


def test_runs_alone_are_enough(study, tmp_path):
    for name in ("evals", "curves", "latency"):
        shutil.rmtree(study / name)
    (study / "grid.yaml").unlink()
    document = load_report_study(study)
    assert template_warnings(document, tmp_path) == []
    page = content(document)
    assert "No latency was measured in this study." in words(section(page, "What serving costs"))
    (effect,) = section(page, "What experts do")
    assert effect["text"].startswith("No routed run")


def test_an_imported_table_of_dense_runs_makes_a_report(tmp_path):
    rng = np.random.default_rng(0)
    size, tokens = (np.exp(rng.uniform(*np.log(ends), 60)) for ends in ((1e7, 1e9), (1e9, 1e11)))
    loss = (1.8 + 480 / size**0.35 + 2100 / tokens**0.37) * np.exp(rng.normal(0, 0.003, 60))
    rows = ["n_active,tokens,loss_val", *(f"{n},{d},{y}" for n, d, y in zip(size, tokens, loss, strict=True))]
    (tmp_path / "theirs.csv").write_text("\n".join(rows))
    import_runs(tmp_path / "theirs.csv", tmp_path / "theirs")
    document = load_report_study(tmp_path / "theirs")
    assert template_warnings(document, tmp_path) == []
    assert list(document.fits) == ["hoffmann"]
    assert set(document.table.frame["n_experts"]) == {1}
    assert any("shown as dense" in note for note in document.notes)


def test_a_broken_recommendation_is_left_out_and_named(study):
    file = study / "recommendations" / "joint-moe.json"
    file.write_text("{")
    assert any(re.search(r"joint-moe\.json.*not JSON", note) for note in load_report_study(study).notes)
    store(file, {"law": "joint-moe"})
    assert any(re.search(r"joint-moe\.json", note) for note in load_report_study(study).notes)


def test_missing_packages_are_named_with_the_remedy(answered, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "typst" else find_spec(name))
    with pytest.raises(InputError, match=r"needs typst: pip install 'moe-scaling\[report\]'"):
        build_report(answered, tmp_path / "r.pdf")


def test_other_names_than_pdf_are_refused(answered, tmp_path):
    with pytest.raises(InputError, match=r"`out` .*r\.html.*\.pdf"):
        build_report(answered, tmp_path / "r.html")
    with pytest.raises(InputError, match=r"`picture` .*p\.gif.*\.png"):
        build_report(answered, tmp_path / "r.pdf", tmp_path / "p.gif")


def test_a_template_that_fails_is_failed_work(tmp_path):
    (tmp_path / "report.typ").write_text('#panic("no")')
    with pytest.raises(WorkError, match="typst could not make the report"):
        compile_pdf(tmp_path, datetime(2026, 1, 1))


NAMED = "[red] #1 'r' $x.PDF"  # a name like any other, and either case of the ending


def test_the_command(answered, tmp_path):
    from scaling.cli.main import app

    done = CliRunner().invoke(app, ["report", str(answered), "--out", str(tmp_path / NAMED), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"report": str(tmp_path / NAMED), "picture": None, "notes": []}
    assert (tmp_path / NAMED).is_file()
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


def test_a_number_that_is_missing_is_a_dash():
    writers = (formatting.si, formatting.number, formatting.loss, formatting.flops, formatting.percent)
    assert [write(None) for write in writers] == ["–"] * 5
    assert [formatting.si(float("nan")), formatting.number(float("nan"))] == ["–", "–"]


def test_values_are_listed_and_the_rest_counted():
    assert formatting.listed([1, 4.0, 0.5, "soft"]) == "1, 4, 0.5, soft"
    assert formatting.listed(range(5), most=3) == "0, 1, 2 and 2 more"
    assert [formatting.listed([]), formatting.listed([], empty="no columns")] == ["none", "no columns"]


def test_the_first_line_of_a_message():
    assert [formatting.first_line(m) for m in ("\n no\nmore", ValueError("no\nmore"), KeyError(), "")] == [
        "no", "no", "KeyError", ""
    ]  # fmt: skip
