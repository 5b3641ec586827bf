"""The claims of arXiv 2404.02852 from our laws: the sizes of its models, the laws' optima, and the rows of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.fitting.published import published
from benchmarks import inference_optimal as page

PAPER, DOC = page.SETTINGS[0], Path(__file__).parents[2] / "docs" / "inference-optimal.md"


def test_the_papers_models_have_its_sizes():
    """laws.md 1.5: N_total is 2, 3.33, 6 and 11.33 N with 4, 8, 16 and 32 experts, N_active 4/3 N with top-2."""
    for n_experts, total in ((1, 1.0), (4, 2.0), (8, 10 / 3), (16, 6.0), (32, 34 / 3)):
        sizes = page.backbone(np.array([3e9]), n_experts)
        assert sizes.n_total / 3e9 == pytest.approx(total)
        assert sizes.n_active / 3e9 == pytest.approx(4 / 3 if n_experts > 1 else 1.0)
        assert 12.0 * sizes.d_model**2 * sizes.n_layers == pytest.approx(3e9)


def test_a_curve_is_lowest_at_the_laws_optimum():
    law = published("joint-moe-2025")
    for n_experts in page.COUNTS:
        curve = page.Curve.of(PAPER, 1e22, n_experts)
        size, tokens = law.definition.optimum(law.params, 1e22, n_experts)
        least = law.loss({"n_active": size, "tokens": tokens, "n_experts": float(n_experts)})
        assert curve.loss.min() == pytest.approx(float(least), rel=1e-6)
        smallest = curve.smallest(float(least) + 0.01)
        assert smallest < size
        at = {"n_active": smallest, "tokens": 1e22 / 6 / smallest, "n_experts": float(n_experts)}
        assert float(law.loss(at)) == pytest.approx(float(least) + 0.01, abs=1e-3)


def test_models_of_equal_quality_have_one_loss():
    law, found = published("joint-moe-2025"), page.equal_quality(PAPER, 8.18e21)
    losses = [float(law.loss({"n_active": r.n, "tokens": r.tokens, "n_experts": float(r.n_experts)})) for r in found]
    assert losses == pytest.approx([losses[1]] * len(page.COUNTS), abs=1e-5)
    assert min(row.train_ratio for row in found if row.n_experts >= 16) == 1.0
    four = next(row for row in found if row.n_experts == 4)
    assert 6.0 * four.n * four.tokens == pytest.approx(8.18e21, rel=1e-3)
    assert all(row.usd_multiplying_all > row.usd_per_million for row in found if row.n_experts > 1)


@pytest.mark.slow
def test_the_rows_of_the_page_are_those_of_the_script():
    found = page.measured()
    rows = {*page.rows_of_equal_quality(found), *page.rows_of_smaller(found)}
    printed = {line for line in DOC.read_text().splitlines() if line.startswith("| ") and "-2025, " in line}
    assert len(printed) > 20
    assert printed <= rows
