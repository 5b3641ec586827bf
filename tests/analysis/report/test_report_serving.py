"""The priced decision in the report: what a budget owner reads first is what the analysis says, and older answers
do."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reported import altered, coarse, column, quick_checks, section, store, tables, template_warnings, words

from analysis.decision import cost_curves
from analysis.decision.answer import Answer, answer_document, parse_answer
from analysis.decision.answer import answer as answer_of
from analysis.decision.fit_comparison import FitAlternative, FitAlternatives
from analysis.decision.lifetime_cost import structure
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.decision.what_if import Case, Crossover, WhatIf
from analysis.latency import law as latency
from analysis.latency import table as latency_table
from analysis.report import measured
from analysis.report.contents import content
from analysis.report.plots import decision
from analysis.report.question import question_sentence
from analysis.report.sections import serving, what_if
from analysis.report.study import LATENCY_LAW, load_report_study
from analysis.report.subject import with_curves
from scaling import formatting
from scaling.formatting import si, usd
from scaling.serving import devices as hardware
from scaling.serving import replicas
from scaling.serving.published_training import assumed_training_speed
from scaling.serving.service import Service

LOAD = Question(
    train_flops=1e13, requests_per_month=2e13, months=6, device="h100", service=Service(prompt=128, generated=64)
)
PRICED = Question(train_flops=1e13, serve_tokens=1e10, device="h100")
IN_FLOPS = Question(train_flops=1e13, serve_tokens=1e8)


@pytest.fixture(scope="module")
def answers(joint):
    """The three questions answered."""
    with pytest.MonkeyPatch.context() as patch:
        coarse(patch)
        return {
            name: answer_of(joint, asked) for name, asked in (("load", LOAD), ("priced", PRICED), ("flops", IN_FLOPS))
        }


@pytest.fixture(scope="module")
def study(loaded, joint, answers):
    """The study with one of the answers, `study("load")`, or with any other."""

    def with_answer(answer):
        answer = answers[answer] if isinstance(answer, str) else with_curves(answer, joint)
        return replace(loaded, answers={"joint-moe": answer})

    return with_answer


def first_page(study):
    return words(content(study)["summary"])


def test_the_first_page_has_the_parts_of_the_cost_and_a_month_of_serving(study, answers):
    page = first_page(study("load"))
    chosen = answers["load"].best
    total, train, serve = (usd(getattr(chosen.cost, part)) for part in ("total", "train", "serve"))
    rent = hardware.device("h100").usd_per_hour
    hours = [si(cost / rent) for cost in (chosen.cost.train, chosen.cost.serve)]
    mfu = formatting.percent(assumed_training_speed().mfu_at(chosen.n_experts))
    assert f"Cost: {total}, {train} to train ({hours[0]} device-hours at {mfu} MFU) and {serve} to serve" in page
    assert f"({hours[1]} device-hours), {usd(chosen.served.usd_per_million)} per million" in page
    devices = chosen.served.replicas * chosen.served.n_devices
    # Whole devices, rented all month, busy or not.
    monthly = devices * rent * replicas.SECONDS_A_MONTH / 3600
    assert f"A month: {usd(monthly)} for 20T requests, on {formatting.plural(devices, 'device')}" in page
    assert "6 months at 20T requests a month" in page


def test_the_first_page_has_the_interval_of_the_law_and_that_of_a_run(study, answers):
    page = first_page(study("flops"))
    chosen = answers["flops"].best
    assert formatting.between(chosen.loss_interval, formatting.loss) in page
    assert formatting.between(chosen.run_interval, formatting.loss) in page
    assert "A month" not in page
    assert f"{formatting.flops(chosen.cost.train)} FLOP to train" in page


def test_what_would_change_it_has_a_line_for_every_case_and_crossover(answers):
    answer = changed(answers["flops"], "price", "memory", crossovers=CROSSINGS)
    price, memory, rent = answer.what_if.cases
    answer = replace(answer, what_if=replace(answer.what_if, cases=(price, replace(memory, n_experts=None), rent)))
    assert what_if.changes(answer) == [
        "if price were double, E = 4 would be best",
        "if memory were double, no E could answer",
        "E = 8 remains best when varying rent",
        "at 10M tokens served E = 4 overtakes the dense model",
        "at 3B tokens served E = 8 overtakes E = 4",
    ]


def test_every_case_is_in_the_table_with_its_cost(study, answers):
    answer = answers["priced"]
    table, references = tables(section(content(study("priced")), what_if.TITLE))
    assert "loss kept" in references["columns"]
    tried = answer.what_if.cases
    assert len(tried) > 8
    assert column(table, "if") == [case.what for case in tried]
    assert column(table, "cost") == [usd(case.cost) for case in tried]
    shown = decision.shown_cases(answer)
    assert list(shown["changes"]) == [case.changes for case in tried]


CROSSINGS = (Crossover(1e7, 1, 4), Crossover(3e9, 4, 8))


def changed(answer, *changing, crossovers=()):
    """The answer E = 8, which these things change and `rent` does not."""
    cases = [Case(what, "double", 4, 1e5, 1e7, 1e14, changes=True) for what in changing]
    cases.append(Case("rent", "half", 8, 1e5, 1e7, 1e14, changes=False))
    answer = altered(answer, recommendation=replace(answer.best, n_experts=8))
    return replace(answer, what_if=WhatIf(tuple(cases), tuple(crossovers), (1e6, 1e14)))


def test_the_first_page_is_short(answers):
    answer = answers["flops"]
    many = what_if.in_short(changed(answer, *"abcde", crossovers=CROSSINGS))
    assert many[:3] == [f"if {what} were double, E = 4 would be best" for what in "abc"]
    assert many[3] == f"2 more cases would change it: section “{what_if.TITLE}”"
    assert many[4:] == ["at 3B tokens served E = 8 overtakes E = 4"], "1e10 is served: 3e9 is nearer than 1e7"
    assert what_if.in_short(changed(answer)) == [
        f"E = 8 remains best in each of the 1 case of section “{what_if.TITLE}”",
        "from 1M to 100T tokens served no other E overtakes",
    ]
    assert len(what_if.changes(changed(answer, *"abcde", crossovers=CROSSINGS))) == 5 + 1 + 2


def test_the_plane_is_what_recommend_says_of_every_budget_and_volume(study, joint):
    # Asked one by one, where the plane solves all cells at once; a fit without draws answers at the estimate.
    curves = study("flops").curves
    budgets, volumes, best = curves.plane.budgets, curves.plane.volumes, curves.plane.best
    assert curves.asked == (1e13, 1e8)
    assert (budgets[1], volumes[1]) == pytest.approx(curves.asked)
    sure = replace(joint, draws={})
    for i, budget in enumerate(budgets):
        for j, volume in enumerate(volumes):
            alone = recommend(sure, Question(train_flops=float(budget), serve_tokens=float(volume)))
            assert alone.recommendation.n_experts == best[i, j]
    assert curves.most_budget == EXTRAPOLATION_LIMIT * joint.largest_train_flops


def test_a_question_without_a_budget_has_no_plane_and_says_so(study, joint):
    asked = study(Answer(recommend(joint, Question(target_loss=1.6, serve_tokens=1e10))))
    assert asked.curves.plane is None
    assert asked.curves.without_plane in words(section(content(asked), what_if.TITLE))


def test_prices_against_load_are_those_of_the_cheapest_fleet(study, joint, answers):
    prices = study("load").curves.prices
    by_e = {choice.n_experts: choice for choice in answers["load"].choices}
    assert set(prices["n_experts"]) == set(by_e)
    on, service = hardware.device("h100"), LOAD.service
    assert prices["requests_per_month"].min() < LOAD.requests_per_month < prices["requests_per_month"].max()
    for e, rows in prices.groupby("n_experts"):
        sizes = SizeOptimiser(joint, LOAD).space(e, dict(joint.params)).sizes(np.array([by_e[e].n_active]))
        for _, row in rows.iloc[::20].iterrows():
            demand = replicas.demand_of(float(row["requests_per_month"]), service)
            offer = replicas.cheapest(structure(sizes), on, service, demand)
            assert row["usd_per_million"] == pytest.approx(1e6 * float(offer.usd_per_token[0]), rel=1e-9)


def test_overtakings_are_where_the_cheapest_changes_and_ties_are_none():
    loads = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    prices = {1: [1, 1, 2, 3, 9, 1], 4: [1, 2, 3, 2, 2, 5], 8: [5, 5, 2, 5, 5, 5]}
    rows = [
        {"n_experts": e, "requests_per_month": load, "usd_per_million": price}
        for e, column in prices.items() for load, price in zip(loads, column, strict=True)
    ]  # fmt: skip
    found = cost_curves.overtakings(pd.DataFrame(rows))
    # 1 and 4 tie at first, 1 leads, 1 and 8 tie, 4 leads twice, 1 again.
    assert found.to_numpy().tolist() == [[1, 4, 4.0, 2.0], [4, 1, 6.0, 1.0]]
    assert cost_curves.overtakings(pd.DataFrame(rows[:2])).empty


def test_the_price_of_few_requests_is_inverse_to_them(study):
    # One replica of one device, idle most of the time, costs the same whatever it serves.
    for _, rows in study("load").curves.prices.groupby("n_experts"):
        first = rows.iloc[:3]
        monthly = first["requests_per_month"] * first["usd_per_million"]
        assert np.ptp(monthly) < 1e-9 * monthly.max()


def test_the_table_of_serving_has_every_replica_and_the_formulas(study, answers):
    blocks = section(content(study("load")), "What serving costs")
    answer = answers["load"]
    choices = (answer.best, *answer.recommendation.alternatives)
    table, formulas = tables(blocks)[:2]
    assert [cell.removesuffix(" ★") for cell in column(table, "E")] == [str(choice.n_experts) for choice in choices]
    for header, write in (
        ("devices", lambda replica: str(replica.n_devices)),
        ("batch", lambda replica: str(replica.batch)),
        ("TTFT (ms)", lambda replica: formatting.number(replica.ttft_ms, ".3g")),
        ("TPOT (ms)", lambda replica: formatting.number(replica.tpot_ms, ".3g")),
        ("tok/s", lambda replica: si(replica.output_throughput)),
        ("per M tok", lambda replica: usd(replica.usd_per_million)),
        ("replicas", lambda replica: str(replica.replicas)),
    ):
        assert column(table, header) == [write(choice.served) for choice in choices], header
    assert dict(formulas["rows"]) == replicas.METRICS
    rented = hardware.device("h100")
    assert f"{usd(rented.usd_per_hour)} an hour" in blocks[0]["text"]
    sources = words(section(content(study("load")), serving.ASSUMPTIONS))  # said once
    assert all(part in sources for part in (rented.title, rented.price_source, rented.price_date))


def test_a_question_in_flops_says_in_one_line_that_nothing_is_priced(study):
    unpriced = study("flops")
    blocks = section(content(unpriced), "What serving costs")
    assert blocks[0]["text"].startswith("The question counts FLOPs")
    assert not any("per M tok" in table["columns"] for table in tables(blocks))
    assert unpriced.curves.prices.empty
    assert decision.cost_against_load not in decision.drawn(unpriced)


def test_the_report_compiles_without_a_warning(study, tmp_path):
    assert template_warnings(study("load"), tmp_path) == []
    drawn = {file.stem for file in tmp_path.glob("*.svg")}
    assert {"hero", "what_would_change", "cost_against_load"} <= drawn


def older(answer):
    """The answer without what earlier versions did not store."""
    document = answer_document(answer)
    for name in ("what_if", "cost_curves", "schema_version", "fit_hash", "made_from", "law_file"):
        del document[name]
    for choice in (document["recommendation"], *document["alternatives"]):
        del choice["served"], choice["run_interval"]
    fields = ("train_flops", "target_loss", "serve_tokens", "n_experts", "memory_gb", "device", "usd_per_hour", "mfu")
    document["question"] = {key: document["question"][key] for key in (*fields, "reference_experts", "settings")}
    return parse_answer(document, "an older answer")


def test_the_first_page_names_the_loss_that_is_kept_and_a_table_has_what_hangs_on_it(study, answers):
    answer = answers["flops"]
    kept, cases = answer.recommendation.reference, answer.what_if.references
    page = study("flops")
    assert f"Loss kept: {kept.loss:.4f}" in first_page(page)
    assert f"{si(kept.n_active)} parameters on {si(kept.tokens)} tokens" in first_page(page)
    found = next(table for table in tables(section(content(page), what_if.TITLE)) if "loss kept" in table["columns"])
    assert [row[0] for row in found["rows"]] == [case.reference.what for case in cases]
    assert len(cases) >= 4


def test_an_answer_of_an_older_version_makes_a_report(study, answers, tmp_path):
    priced, in_flops = study(older(answers["priced"])), study(older(answers["flops"]))
    assert template_warnings(priced, tmp_path) == []
    for old in (priced, in_flops):
        page = content(old)
        assert not tables(section(page, what_if.TITLE))
        assert section(page, what_if.TITLE)[0]["text"] == what_if.NOT_STORED.replace("`", "")
        assert not any("replicas" in table["columns"] for table in tables(section(page, "What serving costs")))
    assert "How models are served was not stored" in words(content(priced))


def test_fits_that_were_compared_are_in_a_table(study, answers):
    first = FitAlternative("k2", 2, 8, 2e5, 3e7, 1.5e14, 0.9, 0.004)
    second = replace(first, name="k1", top_k=None, n_experts=1, probability_best=0.1, regret=0.2)
    compared = study(replace(answers["flops"], comparison=FitAlternatives((first, second), 40)))
    table = tables(section(content(compared), "The decision in detail"))[1]
    assert table["rows"][0] == ["k2 ★", "2", "8", "200K", "30M", "1.5×10¹⁴", "90%", "0.4%"]
    assert table["rows"][1] == ["k1", "–", "1", "200K", "30M", "1.5×10¹⁴", "10%", "20.0%"]


def test_a_measured_speed_gives_the_price_an_interval(study, answers):
    answer = answers["priced"]
    served = replace(answer.best.served, usd_per_million_interval=(0.5, 2.0))
    priced = study(altered(answer, recommendation=replace(answer.best, served=served)))
    assert f"{usd(served.usd_per_million)} ($0.5 – $2) per million" in first_page(priced)


@pytest.fixture(scope="module")
def timed(answered, tmp_path_factory):
    """The study with a latency law of its times, three of which are spoiled: one twice as long, two on a busy
    machine."""
    folder = shutil.copytree(answered, tmp_path_factory.mktemp("timed") / "planted")
    rows = latency_table.read_latency(folder)
    planted = replace(hardware.device("h100"), peak_flops=1e11, bandwidth=2e10)
    law = latency.fit_latency(rows, planted, np.random.default_rng(0), 5)
    store(folder / LATENCY_LAW, latency.latency_document(law))
    with pytest.MonkeyPatch.context() as patch:
        quick_checks(patch)
        return load_report_study(folder)


def test_a_stored_latency_law_stands_beside_the_measurement(timed, study):
    law = timed.latency_law
    blocks = section(content(timed), "What serving costs")
    (summary,) = [block["text"] for block in blocks if block["kind"] == "text" and LATENCY_LAW in block["text"]]
    held_out = law.held_out["all"]
    assert f"{law.n_rows} times of {law.n_shapes} shapes in float32" in summary
    assert (
        f"is {formatting.percent(held_out.median)} and the 90th percentile {formatting.percent(held_out.p90)}"
        in summary
    )
    assert column(tables(blocks)[-1], "term") == list(law.intervals)
    assert len(timed.modelled) == law.n_rows
    assert decision.measured_modelled in decision.drawn(timed)
    titles = [ax.get_title(loc="left") for ax in decision.measured_modelled(timed).axes]
    assert titles == ["Prefill", "Decode", "Errors"]
    assert decision.measured_modelled not in decision.drawn(study("flops"))


def test_a_latency_law_may_stand_beside_a_study_whose_models_were_not_timed(timed, answers, tmp_path, monkeypatch):
    folder = shutil.copytree(timed.path, tmp_path / "untimed")
    shutil.rmtree(folder / "latency")
    shutil.rmtree(folder / ".merged", ignore_errors=True)
    store(tmp_path / "priced.json", answer_document(answers["priced"]))
    quick_checks(monkeypatch)
    untimed = load_report_study(folder, tmp_path / "priced.json")
    assert untimed.latency.empty
    assert untimed.modelled.empty
    assert untimed.latency_law.intervals == timed.latency_law.intervals
    assert template_warnings(untimed, tmp_path) == []


def test_a_latency_law_of_some_rows_is_held_against_these(timed, tmp_path, monkeypatch):
    """Two number formats were timed, and the law is of one; without `where` no table of both is read."""
    folder = shutil.copytree(timed.path, tmp_path / "both")
    shutil.rmtree(folder / ".merged", ignore_errors=True)
    for part in (folder / "latency").rglob("*.parquet"):
        rows = pd.read_parquet(part)
        pd.concat([rows, rows.assign(dtype="bfloat16", time_ms=2 * rows["time_ms"])]).to_parquet(part)
    rows = latency_table.read_latency(folder, where="dtype == 'float32'")
    law = latency.fit_latency(rows, timed.latency_law.device, np.random.default_rng(0), 5)
    store(folder / LATENCY_LAW, latency.latency_document(law))
    quick_checks(monkeypatch)
    both = load_report_study(folder)
    assert set(both.modelled["dtype"]) == {"float32"}
    assert len(both.modelled) == law.n_rows == timed.latency_law.n_rows


def test_times_that_their_law_contradicts_or_that_a_busy_machine_spoiled_are_flagged_where_they_are_shown(timed):
    shown = measured.measured_decode(timed.latency)
    dense, four, eight = shown.index
    times = timed.latency["time_ms"].where(timed.latency.index != four, 3.0 * timed.latency["time_ms"])
    busy = pd.Series(0.0, index=timed.latency.index).where(timed.latency.index != eight, 1.5)
    latency_rows = timed.latency.assign(time_ms=times, busy_cores=busy)
    doubted = measured.with_doubts(latency_rows, timed.modelled, timed.latency_law)
    assert doubted.loc[four, "doubt"] == measured.UNLIKE_LAW
    assert doubted.loc[eight, "doubt"] == measured.BUSY_MACHINE
    assert doubted.loc[dense, "doubt"] == ""
    page = content(replace(timed, latency=doubted))
    (figure,) = [block for block in page["summary"] if block["kind"] == "figure"]
    assert "2 of these 3 times may be off" in figure["caption"]
    timing = next(t for t in tables(section(page, "What serving costs")) if "median, ms" in t["columns"])
    marked = dict(
        zip(zip(column(timing, "E"), column(timing, "batch"), strict=True), column(timing, "median, ms"), strict=True)
    )
    assert [marked[e, "64"].endswith("?") for e in ("dense", "4", "8")] == [False, True, True]
    bars = decision.hero(replace(timed, latency=doubted)).axes[-1]
    assert [bool(bar.get_hatch()) for bar in bars.patches] == [False, True, True]
    assert [note.get_text()[-1] for note in bars.texts] == ["?", "?"]


_BUDGET = {"train_flops": 1e20, "serve_tokens": 1e12}


@pytest.mark.parametrize(
    ("asked", "phrase"),
    [
        ({"train_flops": 1e20}, "Which model reaches the least loss with a training budget of 1×10²⁰ FLOP?"),
        ({"train_usd": 2e5, "device": "h100"}, "with a training budget of $200K, on h100?"),
        ({"target_loss": 2.1, "serve_tokens": 1e12}, "a loss of 2.100 nats per token at the least cost over its life"),
        (_BUDGET | {"minimise": "serving"}, "which costs least to serve, over its life"),
        ({"lifetime_cost": 1e6, "serve_tokens": 1e12, "device": "h100"}, "the least loss for $1M over its life"),
        (_BUDGET | {"reference_experts": 8}, "that of the best model with E = 8 at the budget, which costs least"),
        ({"train_flops": 1e20, "requests_per_month": 1e6}, "12 months at 1M requests a month (3.07B tokens)"),
        (
            {"train_flops": 1e20, "data_tokens": 1e10, "memory_gb": 80},
            "GB of memory, on at most 10B tokens of text?",
        ),
    ],
)
def test_a_question_is_worded_by_what_was_given(asked, phrase):
    assert phrase in question_sentence(Question(**asked))
