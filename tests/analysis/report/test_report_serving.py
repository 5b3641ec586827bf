"""The priced decision in the report: what a budget owner reads first is what the analysis says, and older answers
do."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from reported import column, section, tables, template_warnings, unchecked, words
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
from analysis.report.contents import content
from analysis.report.plots import decision
from analysis.report.question import question_sentence
from analysis.report.sections import what_if
from analysis.report.study import LATENCY_LAW, load_report_study
from analysis.tables import runs
from scaling import formatting
from scaling.formatting import si
from scaling.serving import devices as hardware
from scaling.serving import replicas
from scaling.serving.service import Service
from scaling.values import FIT, plain

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
    (out / "fits" / "joint-moe.json").write_text(json.dumps(FIT.document(joint)), encoding="utf-8")
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
        document = plain(found) | {"what_if": plain(explore(joint, asked, found))}
        made[name] = json.loads(json.dumps(document))
    return made


@pytest.fixture(scope="module")
def study(folder, answers):
    """The study as read with one of the answers, once: `study("load")`; or with any other document."""
    path = folder / "recommendations" / "joint-moe.json"
    path.parent.mkdir()
    read_once = {}

    def read(answer):
        if isinstance(answer, str):
            read_once[answer] = read_once.get(answer) or read(answers[answer])
            return read_once[answer]
        path.write_text(json.dumps(answer), encoding="utf-8")
        return load_report_study(folder)

    with pytest.MonkeyPatch.context() as patch:
        unchecked(patch)
        yield read


def first_page(study):
    return words(content(study)["summary"])


def test_the_first_page_has_the_parts_of_the_cost_and_a_month_of_serving(study, answers):
    page = first_page(study("load"))
    chosen = answers["load"]["recommendation"]
    total, train, serve = (f"{si(chosen['cost'][part])} USD" for part in ("total", "train", "serve"))
    assert f"Cost: {total}, {train} to train and {serve} to serve" in page
    served = chosen["served"]
    devices = served["replicas"] * served["n_devices"]
    # Whole devices, rented all month, busy or not.
    rent = devices * hardware.device("h100").usd_per_hour * replicas.SECONDS_A_MONTH / 3600
    assert f"A month: {si(rent)} USD for 20T requests, on {formatting.plural(devices, 'device')}" in page
    assert f"at {si(served['usd_per_million'])} USD per million" in page
    assert "6 months at 20T requests a month" in page


def test_the_first_page_has_the_interval_of_the_law_and_that_of_a_run(study, answers):
    page = first_page(study("flops"))
    chosen = answers["flops"]["recommendation"]
    assert formatting.between(chosen["loss_interval"], formatting.loss) in page
    assert formatting.between(chosen["run_interval"], formatting.loss) in page
    assert "A month" not in page
    assert f"{formatting.flops(chosen['cost']['train'])} FLOP to train" in page


def test_what_would_change_it_has_a_line_for_every_case_and_crossover():
    crossings = [{"volume": 1e7, "before": 1, "after": 4}, {"volume": 3e9, "before": 4, "after": 8}]
    answer = cases("price", "memory", crossovers=crossings)
    answer["what_if"]["cases"][1]["n_experts"] = None
    assert what_if.changes(answer) == [
        "if price were double, E = 4 would be best",
        "if memory were double, no E could answer",
        "E = 8 remains best when varying rent",
        "at 10M tokens served E = 4 overtakes the dense model",
        "at 3B tokens served E = 8 overtakes E = 4",
    ]


def test_every_case_is_in_the_table_with_its_cost(study, answers):
    answer = answers["priced"]
    (table,) = tables(section(content(study("priced")), what_if.TITLE))
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
        "E = 8 remains best when varying rent",
        "from 1M to 100T tokens served no other E overtakes",
    ]
    assert len(what_if.changes(cases(*"abcde", crossovers=crossings))) == 5 + 1 + 2


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
    asked = study(plain(recommend(joint, Question(target_loss=1.6, serve_tokens=1e10))))
    assert asked.curves.plane is None
    assert asked.curves.without_plane in words(section(content(asked), what_if.TITLE))


def test_prices_against_load_are_those_of_the_cheapest_fleet(study, joint, answers):
    prices = study("load").curves.prices
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
    choices = sorted((answer["recommendation"], *answer["alternatives"]), key=lambda choice: choice["n_experts"])
    served = [choice["served"] for choice in choices]
    table, formulas = tables(blocks)[:2]
    stars = [cell.endswith("★") for cell in column(table, "E")]
    assert stars == [choice is answer["recommendation"] for choice in choices]
    for header, write in (
        ("devices", lambda replica: str(replica["n_devices"])),
        ("batch", lambda replica: str(replica["batch"])),
        ("ttft, ms", lambda replica: formatting.number(replica["ttft_ms"], ".3g")),
        ("tpot, ms", lambda replica: formatting.number(replica["tpot_ms"], ".3g")),
        ("e2el, ms", lambda replica: formatting.number(replica["e2el_ms"], ".3g")),
        ("tokens/s", lambda replica: si(replica["output_throughput"])),
        ("USD/million", lambda replica: si(replica["usd_per_million"])),
        ("replicas", lambda replica: str(replica["replicas"])),
    ):
        assert [cell.split()[0] for cell in column(table, header)] == [write(replica) for replica in served], header
    assert dict(formulas["rows"]) == replicas.METRICS
    rented = hardware.device("h100")
    basis = (rented.price_source, rented.price_date, f"{rented.usd_per_hour:g} USD an hour")
    assert all(part in blocks[0]["text"] for part in basis)


def test_a_question_in_flops_says_in_one_line_that_nothing_is_priced(study):
    unpriced = study("flops")
    blocks = section(content(unpriced), "What serving costs")
    assert blocks[0]["text"].startswith("The question counts FLOPs")
    assert not any("USD/million" in table["columns"] for table in tables(blocks))
    assert unpriced.curves.prices.empty
    assert decision.cost_against_load not in decision.drawn(unpriced)


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
    fields = ("train_flops", "target_loss", "serve_tokens", "n_experts", "memory_gb", "device", "usd_per_hour", "mfu")
    answer["question"] = {key: answer["question"][key] for key in (*fields, "reference_experts", "settings")}
    return answer


def test_an_answer_of_an_older_version_makes_a_report(study, answers, tmp_path):
    priced, in_flops = study(older(answers["priced"])), study(older(answers["flops"]))
    assert template_warnings(priced, tmp_path) == []
    for old in (priced, in_flops):
        page = content(old)
        assert not tables(section(page, what_if.TITLE))
        assert section(page, what_if.TITLE)[0]["text"] == what_if.NOT_STORED
        assert not any("replicas" in table["columns"] for table in tables(section(page, "What serving costs")))
    assert "How models are served was not stored" in words(content(priced))


def test_fits_that_were_compared_are_in_a_table(study, answers):
    fit = {"name": "k2", "top_k": 2, "n_experts": 8, "n_active": 2e5, "tokens": 3e7, "value": 1.5e14}
    first = fit | {"probability_best": 0.9, "regret": 0.004}
    second = fit | {"name": "k1", "top_k": None, "n_experts": 1, "probability_best": 0.1, "regret": 0.2}
    compared = study(answers["flops"] | {"rivals": {"rivals": [first, second], "n_draws": 40}})
    table = tables(section(content(compared), "The decision in detail"))[1]
    assert table["rows"][0] == ["k2 ★", "2", "8", "200K", "30M", "1.5×10¹⁴", "90%", "< 1%"]
    assert table["rows"][1] == ["k1", "–", "dense", "200K", "30M", "1.5×10¹⁴", "10%", "20%"]


def test_a_measured_speed_gives_the_price_an_interval(study, answers):
    answer = json.loads(json.dumps(answers["priced"]))
    answer["recommendation"]["served"]["usd_per_million_interval"] = [0.5, 2.0]
    priced = study(answer)
    assert "(0.5 – 2) USD per million" in first_page(priced)
    prices = column(tables(section(content(priced), "What serving costs"))[0], "USD/million")
    assert sum(cell.endswith("(0.5 – 2)") for cell in prices) == 1


def test_a_stored_latency_law_stands_beside_the_measurement(study, folder, answers):
    measured = latency_table.read_latency(folder)
    rng, planted = np.random.default_rng(0), replace(hardware.device("h100"), peak_flops=1e11, bandwidth=2e10)
    law = latency.fit_latency(measured, planted, rng, 5)
    file = folder / LATENCY_LAW
    file.write_text(json.dumps(latency.latency_document(law)), encoding="utf-8")
    found = study(answers["flops"])
    file.unlink()
    blocks = section(content(found), "What serving costs")
    (summary,) = [block["text"] for block in blocks if block["kind"] == "text" and LATENCY_LAW in block["text"]]
    held_out = law.held_out["all"]
    assert f"{law.n_rows} times of {law.n_shapes} shapes in float32" in summary
    assert (
        f"is {formatting.percent(held_out.median)} and the 90th percentile {formatting.percent(held_out.p90)}"
        in summary
    )
    assert column(tables(blocks)[-1], "term") == list(law.intervals)
    assert len(found.modelled) == len(measured)
    assert decision.measured_modelled in decision.drawn(found)
    titles = [ax.get_title(loc="left") for ax in decision.measured_modelled(found).axes]
    assert titles == ["Prefill", "Decode", "Errors"]
    assert decision.measured_modelled not in decision.drawn(study("flops"))


_BUDGET = {"train_flops": 1e20, "serve_tokens": 1e12}


@pytest.mark.parametrize(
    ("asked", "phrase"),
    [
        ({"train_flops": 1e20}, "Which model reaches the least loss with a training budget of 1×10²⁰ FLOP?"),
        ({"train_usd": 2e5, "device": "h100"}, "with a training budget of 200K USD, on h100?"),
        ({"target_loss": 2.1, "serve_tokens": 1e12}, "a loss of 2.100 nats per token at the least cost over its life"),
        (_BUDGET | {"minimise": "serving"}, "which costs least to serve, over its life"),
        ({"lifetime_cost": 1e6, "serve_tokens": 1e12, "device": "h100"}, "the least loss for 1M USD over its life"),
        (_BUDGET | {"reference_experts": 8}, "the best model with E = 8 of this budget"),
        ({"train_flops": 1e20, "requests_per_month": 1e6}, "12 months at 1M requests a month (9.22B tokens)"),
        (
            {"train_flops": 1e20, "data_tokens": 1e10, "memory_gb": 80},
            "GB of memory, on at most 10B tokens of text?",
        ),
    ],
)
def test_a_question_is_worded_by_what_was_given(asked, phrase):
    assert phrase in question_sentence(json.loads(json.dumps(asdict(Question(**asked)))))
