"""A fit from a file holds together, or the field that contradicts the others is named."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from dense_grid import DENSE, dense_runs
from planted import moe_grid, table_of

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import fit
from analysis.fitting.fit_file import load_fit, parse_fit
from analysis.fitting.published import PUBLISHED
from analysis.laws import HOFFMANN, JOINT_MOE
from scaling.errors import InputError
from scaling.values import FIT

DELETED = object()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    table = table_of(dense_runs(0.003))
    found = bootstrap(fit(table, HOFFMANN, pin={"beta": 0.36}), table, 8, np.random.default_rng(0))
    return FIT.document(found)


@pytest.fixture(scope="module")
def of_moe() -> dict[str, Any]:
    return FIT.document(fit(table_of(moe_grid()), JOINT_MOE))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("law",), "no-such", "'no-such'"),
        (("law",), 3, "law: "),
        (("law",), "joint-moe", "params.E: "),
        (("params", "alpha"), "0.34", "params.alpha: "),
        (("params", "alpha"), None, "params.alpha: "),
        (("params", "alpha"), True, "params.alpha: "),
        (("params", "alpha"), -0.34, "params.alpha: "),
        (("params", "alpha"), 1e300, "params.alpha: "),
        (("params", "A"), 0, "params.A: "),
        (("params", "Z"), 1.0, "params.Z: "),
        (("params", "beta"), DELETED, "params: "),
        (("params", "beta"), 0.3, "pinned.beta.value: "),
        (("params",), [1, 2], "params: "),
        (("intervals", "A"), [2.0, 1.0], "intervals.A: reversed"),
        (("intervals", "A"), [1.0], "intervals.A[1]: "),
        (("intervals", "A"), [1.0, 2.0, 3.0], "intervals.A"),
        (("intervals", "zz"), [1.0, 2.0], "intervals.zz: "),
        (("draws", "A", 3), "x", "draws.A[3]: "),
        (("draws", "A", 3), -1.0, "draws.A[3]: "),
        (("draws", "A"), [400.0], "draws.A: 1 values, and draws.E has 8"),
        (("draws", "A"), [], "draws.A: 0 values"),
        (("draws", "A"), DELETED, "draws: lacks A"),
        (("draws", "beta"), [0.36] * 8, "draws.beta: beta is pinned"),
        (("draws", "omega"), [0.36] * 8, "draws.omega: "),
        (("draws",), {"A": {"0": 1}}, "draws.A: "),
        (("jackknife", "A"), [400.0], "jackknife.A: "),
        (("strata",), [0], "strata: "),
        (("strata", 0), 0.5, "strata[0]: "),
        (("residuals",), [0.1], "residuals: "),
        (("residuals", 3), 1e30, "residuals[3]: "),
        (("router_skew",), 1e9, "router_skew: "),
        (("n_runs",), -3, "n_runs: "),
        (("n_runs",), 2.5, "n_runs: "),
        (("draws_failed",), -1, "draws_failed: "),
        (("delta",), 0, "delta: "),
        (("noise",), -0.1, "noise: "),
        (("status",), "splendid", "status: "),
        (("domain", "tokens"), [2e9, 1e9], "domain.tokens: reversed"),
        (("domain", "tokens"), [0, 1e9], "domain.tokens[0]: "),
        (("experts",), [0], "experts[0]: "),
        (("pinned", "beta"), {"value": 0.36}, "pinned.beta.source: "),
        (("own_law",), {}, "own_law"),
        (("family",), {"kind": "polynomial"}, "family"),
        (("warnings",), "text", "warnings: "),
    ],
)  # fmt: skip
def test_what_contradicts_the_rest_is_named(document, path, value, named):
    with pytest.raises(InputError) as refused:
        parse_fit(changed(document, path, value), "fit.json")
    assert str(refused.value).startswith("fit.json")
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("dense", "n_active"), [], "family.dense.n_active: must grow"),
        (("dense", "n_active"), [[0, 5.0]], "family.dense.n_active: must grow"),
        (("dense", "n_active"), [[3, -1.0]], "family.dense.n_active[0][1]: "),
        (("dense", "n_active"), [[3000, 1.0]], "family.dense.n_active[0][0]: "),
        (("dense", "n_active"), DELETED, "family.dense.n_active: missing"),
        (("routed", "n_everything"), [[3, 1.0]], "family.routed.n_everything: "),
        (("expert",), [], "family.expert: "),
        (("top_k",), 0, "family.top_k: "),
    ],
)
def test_a_family_of_models_is_sound_too(of_moe, path, value, named):
    assert of_moe["family"]["kind"] == "polynomial"
    with pytest.raises(InputError) as refused:
        parse_fit(changed(of_moe, ("family", *path), value), "fit.json")
    assert named in str(refused.value)


def test_what_the_package_writes_and_publishes_is_sound(document):
    assert parse_fit(document, "x").n_draws == 8
    for name, published in PUBLISHED.items():
        assert parse_fit(FIT.document(published), name) == published


def test_law_and_params_alone_suffice_and_other_keys_are_passed_over(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"law": "hoffmann", "params": DENSE, "comment": {"mine": [1]}}))
    assert load_fit(str(path)).params == DENSE
    path.write_text(f'{{"law": "hoffmann", "params": {json.dumps(DENSE)[:-1]}, "E": 1.7}}}}')
    with pytest.raises(InputError, match="'E' stands twice"):
        load_fit(str(path))
