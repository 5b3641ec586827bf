"""Wrong arguments of the public functions: one InputError that names the argument, never a traceback of ours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import hoffmann_runs

import scaling

QUESTION = {"train_flops": 1e21, "what_if": False}
PUBLISHED = "published:joint-moe-2025"


@pytest.fixture(scope="module")
def fitted() -> scaling.Fit:
    return scaling.fit(scaling.load(hoffmann_runs(noise=0.01)), "hoffmann", bootstrap=10, starts=8)


@pytest.fixture(scope="module")
def runs() -> scaling.RunTable:
    return scaling.load(hoffmann_runs())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda r, f: scaling.load(None), "`source`"),
        (lambda r, f: scaling.load([1, 2]), "`source`"),
        (lambda r, f: scaling.load({"tokens": [1.0]}), "DataFrame"),
        (lambda r, f: scaling.load(hoffmann_runs(), map="n_active=x"), "`map`"),
        (lambda r, f: scaling.load(hoffmann_runs(), map={"n_experts": None}), "`map`"),
        (lambda r, f: scaling.load(hoffmann_runs(), where=hoffmann_runs()["tokens"] > 1), "`where`"),
        (lambda r, f: scaling.load(hoffmann_runs(), drop_highest_loss="2"), "`drop_highest_loss`"),
        (lambda r, f: scaling.load(pd.DataFrame()), "loss_val"),
        (lambda r, f: scaling.load(hoffmann_runs().iloc[:0]), "no rows"),
        (lambda r, f: scaling.load(pd.concat([hoffmann_runs()] * 2, axis=1)), "two columns"),
        (lambda r, f: scaling.fit(hoffmann_runs(), "hoffmann"), r"scaling\.load"),
        (lambda r, f: scaling.fit(r, 3), "`law`"),
        (lambda r, f: scaling.fit(r, "hoffmann", objective="l1"), "`objective`"),
        (lambda r, f: scaling.fit(r, "hoffmann", delta="small"), "`delta`"),
        (lambda r, f: scaling.fit(r, "hoffmann", pin={"E": "1.7"}), "`pin`"),
        (lambda r, f: scaling.fit(r, "hoffmann", starts=0), "`starts`"),
        (lambda r, f: scaling.fit(r, "hoffmann", bootstrap=2.5), "`bootstrap`"),
        (lambda r, f: scaling.fit(r, "hoffmann", bootstrap=True), "`bootstrap`"),
        (lambda r, f: scaling.fit(r, "hoffmann", seed=-1), "`seed`"),
        (lambda r, f: f.predict(None), "mapping"),
        (lambda r, f: f.predict(hoffmann_runs()["tokens"]), "mapping"),
        (lambda r, f: f.predict({"n_active": 1e8}), "'tokens'"),
        (lambda r, f: f.predict({"n_active": [1e8, 2e8], "tokens": [1e9]}), "n_active 2, tokens 1"),
        (lambda r, f: f.predict({"n_active": [1e8, "big"], "tokens": 1e9}), r"n_active .*row 2 \('big'\)"),
        (lambda r, f: f.predict(hoffmann_runs().iloc[:0]), "no rows"),
        (lambda r, f: f.predict(pd.concat([hoffmann_runs()] * 2, axis=1)), "two columns"),
        (lambda r, f: scaling.recommend(None, **QUESTION), "`fit`"),
        (lambda r, f: scaling.recommend(f, train_flops="1e21"), "`train_flops`"),
        (lambda r, f: scaling.recommend(f, **QUESTION, memory_gb="80G"), "`memory_gb`"),
        (lambda r, f: scaling.recommend(PUBLISHED, **QUESTION, n_experts="1,8"), "`n_experts`"),
        (lambda r, f: scaling.recommend(PUBLISHED, **QUESTION, n_experts=(1.5,)), "`n_experts`"),
        (lambda r, f: scaling.recommend(f, **QUESTION, minimise="cost"), "`minimise`"),
        (lambda r, f: scaling.recommend(f, **QUESTION, service={}), "`service`"),
        (lambda r, f: scaling.recommend(f, **QUESTION, latency="law.json"), "`latency`"),
        (lambda r, f: scaling.recommend(f, **QUESTION, tpot_ms=10), r"scaling\.Service\(tpot_s="),
        (lambda r, f: scaling.recommend(f, **QUESTION, prompt=10), r"scaling\.Service\(prompt="),
        (lambda r, f: scaling.recommend(f, **QUESTION, set={"granularity": 4}), "settings="),
        (lambda r, f: scaling.recommend(f, flops=1e21), "`train_flops`"),
        (lambda r, f: scaling.report(f, "plan.pdf"), "`of`"),
        (lambda r, f: scaling.study(hoffmann_runs()), "`folder`"),
        (lambda r, f: scaling.law(None), "`name`"),
        (lambda r, f: scaling.device([]), "`name`"),
        (lambda r, f: scaling.read_answer(None), "`path`"),
        (lambda r, f: scaling.write({}, "fit.json"), "`value`"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(runs, fitted, call, named):
    with pytest.raises(scaling.InputError, match=named):
        call(runs, fitted)


def test_a_mapping_predicts_as_its_frame_does(fitted):
    models = {"n_active": [1e8, 4e8], "tokens": [1e10, 2e10]}
    pd.testing.assert_frame_equal(fitted.predict(models), fitted.predict(pd.DataFrame(models)))
    one, several = fitted.predict({"n_active": 1e8, "tokens": "10B"}), fitted.predict(models | {"tokens": 1e10})
    assert one["loss"].tolist() == several["loss"].tolist()[:1]
    assert len(several) == 2


def test_numbers_of_numpy_and_constant_maps_are_numbers():
    same = [
        scaling.recommend(PUBLISHED, train_flops=budget, n_experts=experts, what_if=False).best.n_active
        for budget, experts in ((1e21, 8), (np.float64(1e21), np.int64(8)), (np.float64(1e21), [np.int32(8)]))
    ]
    assert len({*same}) == 1
    table = scaling.load(hoffmann_runs(), map={"n_experts": 4})
    assert set(table.column("n_experts")) == {4.0}


def test_a_report_of_a_table_says_what_a_report_is_made_of(tmp_path):
    pytest.importorskip("typst")
    path = tmp_path / "runs.csv"
    hoffmann_runs().to_csv(path, index=False)
    with pytest.raises(scaling.InputError, match=r"scaling import .*scaling recommend") as refused:
        scaling.report(path, tmp_path / "runs.pdf")
    assert str(path) in str(refused.value)
