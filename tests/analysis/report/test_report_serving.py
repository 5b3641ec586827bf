"""The priced decision in the report: what a budget owner reads first is what the analysis says, and older answers
do."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from reported import section, strings, tables, template_warnings, unchecked
from synthetic import cells, write_study

from analysis import laws
from analysis.decision import cost_curves
from analysis.decision.lifetime_cost import structure
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.decision.what_if import explore
from analysis.fitting import bootstrap, fit, fit_file
from analysis.latency import law as latency
from analysis.latency import table as latency_table
from analysis.report import build, question
from analysis.report.plots import decision
from analysis.report.sections import what_if
from analysis.report.study import LATENCY_LAW, load_report_study
from analysis.tables import runs
from scaling import formatting
from scaling.formatting import si
from scaling.serving import devices as hardware
from scaling.serving import replicas
from scaling.serving.service import Service

LOAD = Question(
    train_flops=1e13, requests_per_month=2e13, months=6, device="h100", service=Service(prompt=128, generated=64)
)
PRICED = Question(train_flops=1e13, serve_tokens=1e10, device="h100")
IN_FLOPS = Question(train_flops=1e13, serve_tokens=1e8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study with a joint fit of few draws."""
    configs = cells(experts=(1, 4, 8), widths=(32, 48, 64), tokens=(500_000, 2_000_000))
    out = write_study(tmp_path_factory.mktemp("priced") / "planted", configs=configs)
    table = runs.read_runs(out)
    joint = bootstrap.bootstrap(fit.fit(table, laws.JOINT_MOE, n_starts=8), table, 20, np.random.default_rng(0))
    (out / "fits").mkdir()
    (out / "fits" / "joint-moe.json").write_text(json.dumps(joint.to_json()), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def joint(folder):
    return fit_file.load_fit(str(folder / "fits" / "joint-moe.json"))


@pytest.fixture(scope="module")
def answers(joint):
    """The three questions answered as `scaling recommend` stores them."""
    made = {}
    for name, asked in (("load", LOAD), ("priced", PRICED), ("flops", IN_FLOPS)):
        found = recommend(joint, asked)
        document = found.to_json() | {"what_if": explore(joint, asked, found).to_json()}
        made[name] = json.loads(json.dumps(document))
    return made


@pytest.fixture(scope="module")
def study(folder, answers):
    """The study as read with one of the answers, once: `study("load")`; or with any other document."""
    path = folder / "recommendations" / "joint-moe.json"
    path.parent.mkdir()
    known = {}

    def read(answer):
        if isinstance(answer, str):
            known[answer] = known.get(answer) or read(answers[answer])
            return known[answer]
        path.write_text(json.dumps(answer), encoding="utf-8")
        return load_report_study(folder)

    with pytest.MonkeyPatch.context() as patch:
        unchecked(patch)
        yield read


def first_page(study):
    return " ".join(strings(build._content(study)["summary"]))


def test_the_first_page_tells_the_parts_of_the_cost_and_what_a_month_takes(study, answers):
    told = first_page(study("load"))
    chosen = answers["load"]["recommendation"]
    for part in ("train", "serve", "total"):
        assert f"{si(chosen['cost'][part])} USD" in told
    one = chosen["served"]
    devices = one["replicas"] * one["n_devices"]
    # Whole devices, rented all month, busy or not.
    rent = devices * hardware.device("h100").usd_per_hour * replicas.SECONDS_A_MONTH / 3600
    assert f"A month: {si(rent)} USD for 20T requests, which take {formatting.plural(devices, 'device')}" in told
    assert f"at {si(one['usd_per_million'])} USD a million" in told
    assert "6 months at 20T requests a month" in told


def test_the_first_page_has_the_interval_of_the_law_and_that_of_a_run(study, answers):
    told = first_page(study("flops"))
    chosen = answers["flops"]["recommendation"]
    assert f"Loss: {formatting.between(chosen['loss_interval'], formatting.loss)} by the law" in told
    assert f"expected to measure {formatting.between(chosen['run_interval'], formatting.loss)}" in told
    assert "A month" not in told
    assert f"{formatting.flops(chosen['cost']['train'])} FLOP to train" in told


def test_what_would_change_it_has_a_line_for_every_case_that_does(study, answers):
    answer = answers["load"]
    told = strings(section(build._content(study("load")), what_if.TITLE))
    lines = " ".join(told)
    changing = [case for case in answer["what_if"]["cases"] if case["changes"]]
    for case in changing:
        then = (
            "no E could answer"
            if case["n_experts"] is None
            else f"{formatting.experts(case['n_experts'])} would be best"
        )
        assert f"If {case['what']} were {case['value']}, {then}." in lines
    assert lines.count("would be best") + lines.count("could answer.") == len(changing)
    for crossing in answer["what_if"]["crossovers"]:
        assert f"t {si(crossing['volume'])} tokens served {formatting.experts(crossing['after'])} overtakes" in lines


def test_every_case_stands_in_the_table_with_its_cost(study, answers):
    answer = answers["priced"]
    (table,) = tables(section(build._content(study("priced")), what_if.TITLE))
    tried = answer["what_if"]["cases"]
    assert len(table["rows"]) == len(tried) > 8
    for row, case in zip(table["rows"], tried, strict=True):
        assert row[:2] == [case["what"], case["value"]]
        assert row[2].endswith("*") == case["changes"]
        if case["cost"] is not None:
            times = case["cost"] / answer["recommendation"]["cost"]["total"]
            assert float(row[-1]) == pytest.approx(times, rel=5e-3)  # three digits
    shown = decision.shown_cases(study("priced"))
    assert list(shown["changes"]) == [case["changes"] for case in tried]


def cases(*changing, crossovers=()):
    """What `explore` stores, where these things change the answer and `rent` does not."""
    tried = [{"what": what, "value": "double", "n_experts": 4, "changes": True} for what in changing]
    tried.append({"what": "rent", "value": "half", "n_experts": 8, "changes": False})
    found = {"cases": tried, "crossovers": list(crossovers), "volumes": [1e6, 1e14]}
    return {"recommendation": {"n_experts": 8}, "what_if": found}


def test_the_first_page_is_short():
    crossings = [{"volume": 1e7, "before": 1, "after": 4}, {"volume": 3e9, "before": 4, "after": 8}]
    many = what_if.in_short(cases(*"abcde", crossovers=crossings))
    assert many[:3] == [f"if {what} were double, E = 4 would be best" for what in "abc"]
    assert many[3] == f"2 more cases would change it: section “{what_if.TITLE}”"
    assert many[4:] == ["at 3B tokens served E = 8 overtakes E = 4"], "1e10 is served: 3e9 is nearer than 1e7"
    none = what_if.in_short(cases())
    assert none == [
        "E = 8 stays the best whatever was tried of rent",
        "from 1M to 100T tokens served no other E overtakes",
    ]
    assert len(what_if.changes(cases(*"abcde", crossovers=crossings))) == 5 + 1 + 2


def test_the_plane_is_what_recommend_says_of_every_budget_and_volume(study, joint):
    # Asked one by one, where the plane solves all cells at once; a fit without draws answers at the estimate.
    found = study("flops").explored
    budgets, volumes, best = found.plane.budgets, found.plane.volumes, found.plane.best
    assert found.asked == (1e13, 1e8)
    assert (budgets[1], volumes[1]) == pytest.approx(found.asked)
    sure = replace(joint, draws={})
    for i, budget in enumerate(budgets):
        for j, volume in enumerate(volumes):
            alone = recommend(sure, Question(train_flops=float(budget), serve_tokens=float(volume)))
            assert alone.recommendation.n_experts == best[i, j]
    assert found.most_budget == EXTRAPOLATION_LIMIT * joint.largest_train_flops


def test_a_question_without_a_budget_has_no_plane_and_says_so(study, joint):
    asked = study(recommend(joint, Question(target_loss=1.6, serve_tokens=1e10)).to_json())
    assert asked.explored.plane is None
    told = " ".join(strings(section(build._content(asked), what_if.TITLE)))
    assert "There is no plane of budgets and volumes: the question does not minimise a cost" in told


def test_prices_against_load_are_those_of_the_cheapest_fleet(study, joint, answers):
    prices = study("load").explored.prices
    by_e = {c["n_experts"]: c for c in (answers["load"]["recommendation"], *answers["load"]["alternatives"])}
    assert set(prices["n_experts"]) == set(by_e)
    on, service = hardware.device("h100"), LOAD.service
    assert prices["requests_per_month"].min() < LOAD.requests_per_month < prices["requests_per_month"].max()
    for e, rows in prices.groupby("n_experts"):
        sizes = SizeOptimiser(joint, LOAD).space(e, dict(joint.params)).sizes(np.array([by_e[e]["n_active"]]))
        for _, row in rows.iloc[::20].iterrows():
            demand = replicas.demand_of(float(row["requests_per_month"]), service)
            offer = replicas.cheapest(structure(sizes), on, service, demand)
            assert row["usd_per_million"] == pytest.approx(1e6 * float(offer.usd_per_token[0]), rel=1e-9)


def test_overtakings_are_where_the_cheapest_changes_and_ties_are_none():
    loads = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    prices = {1: [1, 1, 2, 3, 9, 1], 4: [1, 2, 3, 2, 2, 5], 8: [5, 5, 2, 5, 5, 5]}
    rows = [
        {"n_experts": e, "requests_per_month": load_report_study, "usd_per_million": price}
        for e, column in prices.items() for load, price in zip(loads, column, strict=True)
    ]  # fmt: skip
    found = cost_curves.overtakings(pd.DataFrame(rows))
    # 1 and 4 tie at first, 1 leads, 1 and 8 tie, 4 leads twice, 1 again.
    assert found.to_numpy().tolist() == [[1, 4, 4.0, 2.0], [4, 1, 6.0, 1.0]]
    assert cost_curves.overtakings(pd.DataFrame(rows[:2])).empty


def test_the_price_of_few_requests_is_inverse_to_them(study):
    # One replica of one device, idle most of the time, costs the same whatever it serves.
    for _, rows in study("load").explored.prices.groupby("n_experts"):
        first = rows.iloc[:3]
        monthly = first["requests_per_month"] * first["usd_per_million"]
        assert np.ptp(monthly) < 1e-9 * monthly.max()


def test_the_table_of_serving_has_every_replica_and_the_formulas(study, answers):
    blocks = section(build._content(study("load")), "What serving costs")
    served = {
        c["n_experts"]: c["served"] for c in (answers["load"]["recommendation"], *answers["load"]["alternatives"])
    }
    table, formulas = tables(blocks)[:2]
    assert len(table["rows"]) == len(served)
    for row, (_, one) in zip(table["rows"], sorted(served.items()), strict=True):
        assert row[0].endswith("★") == (one == answers["load"]["recommendation"]["served"])
        assert row[1].split()[0] == str(one["n_devices"])
        assert row[3] == str(one["batch"])
        numbers = [float(row[i].replace("−", "-")) for i in (4, 5, 6)]
        np.testing.assert_allclose(numbers, [one["ttft_ms"], one["tpot_ms"], one["e2el_ms"]], rtol=5e-3)
        assert row[7] == si(one["output_throughput"])
        assert row[9:] == [si(one["usd_per_million"]), str(one["replicas"])]
    assert dict(formulas["rows"]) == replicas.METRICS
    told = " ".join(strings(blocks))
    rented = hardware.device("h100")
    assert all(
        part in told for part in (rented.price_source, rented.price_date, f"{rented.usd_per_hour:g} USD an hour")
    )


def test_a_question_in_flops_says_in_one_line_that_nothing_is_priced(study):
    found = study("flops")
    blocks = section(build._content(found), "What serving costs")
    assert blocks[0]["text"].startswith("The question counts FLOPs")
    assert "USD an hour" not in " ".join(strings(blocks))
    assert found.explored.prices.empty
    assert decision.cost_against_load not in decision.drawn(found)


def test_the_report_compiles_without_a_warning(study, tmp_path):
    assert template_warnings(study("load"), tmp_path) == []
    drawn = {file.stem for file in tmp_path.glob("*.svg")}
    assert {"regret", "what_would_change", "cost_against_load"} <= drawn


def older(answer):
    """The answer without what earlier versions did not store."""
    answer = json.loads(json.dumps(answer))
    del answer["what_if"]
    for choice in (answer["recommendation"], *answer["alternatives"]):
        del choice["served"], choice["run_interval"]
    known = ("train_flops", "target_loss", "serve_tokens", "n_experts", "memory_gb", "device", "usd_per_hour", "mfu")
    answer["question"] = {key: answer["question"][key] for key in (*known, "reference_experts", "settings")}
    return answer


def test_an_answer_of_an_older_version_makes_a_report(study, answers, tmp_path):
    found = study(older(answers["priced"]))
    assert template_warnings(found, tmp_path) == []
    told = " ".join(strings(build._content(found)))
    assert "stored before it was asked what would change it" in told
    assert "How models are served was not stored" in told
    in_flops = " ".join(strings(build._content(study(older(answers["flops"])))))
    assert "stored before it was asked what would change it" in in_flops
    assert "How models are served was not stored" not in in_flops


def test_fits_that_were_compared_stand_in_a_table(study, answers):
    one = {"name": "k2", "top_k": 2, "n_experts": 8, "n_active": 2e5, "tokens": 3e7, "value": 1.5e14}
    sure = one | {"probability_best": 0.9, "regret": 0.004}
    rivals = {"rivals": [sure, one | {"name": "k1", "top_k": 1, "probability_best": 0.1, "regret": 0.2}], "n_draws": 40}
    table = tables(section(build._content(study(answers["flops"] | {"rivals": rivals})), "The decision in detail"))[1]
    assert table["rows"][0] == ["k2 ★", "2", "8", "200K", "30M", "1.5×10¹⁴", "90%", "< 1%"]
    assert table["rows"][1][0] == "k1"


def test_a_measured_speed_gives_the_price_an_interval(study, answers):
    answer = json.loads(json.dumps(answers["priced"]))
    answer["recommendation"]["served"]["usd_per_million_interval"] = [0.5, 2.0]
    found = study(answer)
    assert "(0.5 – 2) USD a million" in first_page(found)
    assert any("(0.5 – 2)" in row[9] for row in tables(section(build._content(found), "What serving costs"))[0]["rows"])


def test_a_stored_latency_law_stands_beside_the_measurement(study, folder, answers):
    measured = latency_table.read_latency(folder)
    rng, planted = np.random.default_rng(0), replace(hardware.device("h100"), peak_flops=1e11, bandwidth=2e10)
    law = latency.fit_latency(measured, planted, rng, 5)
    file = folder / LATENCY_LAW
    file.write_text(json.dumps(law.to_json()), encoding="utf-8")
    found = study(answers["flops"])
    file.unlink()
    blocks = section(build._content(found), "What serving costs")
    told = " ".join(strings(blocks))
    left_out = law.held_out["all"]
    assert f"{law.n_rows} times of {law.n_shapes} shapes in float32" in told
    assert f"is {formatting.percent(left_out.median)}, the 90th percentile {formatting.percent(left_out.p90)}" in told
    assert [row[0] for row in tables(blocks)[-1]["rows"]] == list(law.intervals)
    assert len(found.modelled) == len(measured)
    assert decision.measured_modelled in decision.drawn(found)
    titles = [ax.get_title(loc="left") for ax in decision.measured_modelled(found).axes]
    assert titles == ["Prefill", "Decode", "Errors"]
    assert decision.measured_modelled not in decision.drawn(study("flops"))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"train_flops": 1e20}, "Which model reaches the least loss with a training budget of 1×10²⁰ FLOP?"),
        ({"train_usd": 2e5, "device": "h100"}, "with a training budget of 200K USD, on h100?"),
        ({"target_loss": 2.1, "serve_tokens": 1e12}, "a loss of 2.100 nats per token at the least cost over its life, 1T tokens"),
        ({"train_flops": 1e20, "serve_tokens": 1e12, "minimise": "serving"}, "which costs least to serve, over its life"),
        ({"lifetime_cost": 1e6, "serve_tokens": 1e12, "device": "h100"}, "the least loss for 1M USD over its life"),
        ({"train_flops": 1e20, "serve_tokens": 1e12, "reference_experts": 8}, "the best model with E = 8 of this budget"),
        ({"train_flops": 1e20, "requests_per_month": 1e6}, "12 months at 1M requests a month (9.22B tokens)"),
        ({"train_flops": 1e20, "data_tokens": 1e10, "memory_gb": 80}, "within 80 GB of memory, on at most 10B tokens of text?"),
    ],
)  # fmt: skip
def test_a_question_is_told_by_what_was_given(asked, told):
    assert told in question.question(json.loads(json.dumps(asdict(Question(**asked)))))
