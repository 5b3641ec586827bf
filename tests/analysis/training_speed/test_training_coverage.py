"""What a training speed does not cover: experts that were never trained, widths far outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_training import table

from analysis.training_speed.coverage import not_covered, require_priced
from analysis.training_speed.law import fit_training_speed
from scaling.errors import InputError
from scaling.serving.published_training import assumed_training_speed, published_training_speed

LAW = fit_training_speed(table(), np.random.default_rng(0), 0).law


def test_inside_nothing_is_said() -> None:
    assert not_covered(LAW, [1, 8, 64], {"d_model": 2048, "n_layers": 16}) == []
    assert not_covered(assumed_training_speed(), [1, 1024], {"d_model": 1e5}) == []
    assert not_covered(published_training_speed("published:megablocks-57"), [1, 16], {}) == []


def test_far_outside_the_range_and_the_value_are_said() -> None:
    (said,) = not_covered(LAW, [1, 65], {"d_model": 20_000, "n_layers": 16})
    assert "not 65" in said
    assert "d_model" in said
    assert "n_layers" not in said
    (said,) = not_covered(published_training_speed("published:megablocks-57"), [1, 32], {})
    assert "E = 1, 8 (not 32)" in said


def test_a_law_of_dense_models_prices_no_experts() -> None:
    dense = fit_training_speed(table(experts=(1,)), np.random.default_rng(0), 0).law
    require_priced(dense, [1])
    require_priced(LAW, [1, 8])
    require_priced(replace(LAW, absent=("messages",)), [1, 8])
    with pytest.raises(InputError, match="E = 8"):
        require_priced(dense, [1, 8])
