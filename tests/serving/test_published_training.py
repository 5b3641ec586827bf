"""What was published of MFU by E, and what is assumed from it."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.errors import InputError
from scaling.serving.published_training import (
    MEASURED,
    assumed_training_speed,
    constant_training_speed,
    expert_slopes,
    published_training_speed,
    slope_of,
)


def test_the_slopes_of_the_pairs_are_those_of_their_sources() -> None:
    """maxtext 1256: 50.4 to 28 % from 8 to 56; marin: 14.72 % at 128 and 18.1 % at 256, against .4 dense."""
    assert slope_of(MEASURED["maxtext-1256"]) == pytest.approx(np.log(50.4 / 28) / np.log(7))
    assert slope_of(MEASURED["marin-7668"]) == pytest.approx(np.log(0.4 / 0.1472) / np.log(128))
    assert slope_of(MEASURED["marin-7201"]) == pytest.approx(np.log(0.4 / 0.181) / np.log(256))


def test_tokens_per_second_of_megablocks_are_compared_per_active_parameter() -> None:
    """69.5 k of 141.2 k tokens/s at 45.0 M against 41 M active: .54 of the MFU; at 830 M .575 x 1.33 = .76."""
    ratios = [low / high for (_, high), (_, low) in MEASURED["megablocks-57"].models]
    assert ratios[0] == pytest.approx(69.5 / 141.2 * 45.0 / 41, rel=1e-9)
    assert ratios[-1] == pytest.approx(9.2 / 16.0 * 1100 / 830, rel=1e-9)
    assert slope_of(MEASURED["megablocks-57"]) == pytest.approx(np.mean(-np.log(ratios) / np.log(8)))


def test_the_assumed_fall_is_the_mean_over_sources_and_covers_each() -> None:
    slope, spread, _ = expert_slopes()
    assert 0.15 < slope < 0.25
    for measured in MEASURED.values():
        assert abs(slope_of(measured) - slope) < 2.2 * spread
    speed = assumed_training_speed()
    assert speed.mfu_at(1) == 0.4
    assert speed.mfu_at(8) < 0.3


def test_a_given_share_replaces_that_of_dense_models_alone() -> None:
    given, assumed = assumed_training_speed(0.5), assumed_training_speed()
    assert given.mfu_at(1) == 0.5
    assert given.mfu_at(64) / 0.5 == pytest.approx(assumed.mfu_at(64) / 0.4)
    assert constant_training_speed(0.5).mfu_at(64) == 0.5


@pytest.mark.parametrize("name", MEASURED)
def test_a_published_speed_gives_back_what_was_measured(name: str) -> None:
    """Exactly where one model was measured; of five sizes the geometric mean."""
    speed, measured = published_training_speed(f"published:{name}"), MEASURED[name]
    for place, (n_experts, _) in enumerate(measured.models[0]):
        reached = np.exp(np.mean([np.log(points[place][1]) for points in measured.models]))
        assert speed.mfu_at(n_experts) == pytest.approx(reached, rel=1e-9)
    assert speed.measured_at == tuple(n_experts for n_experts, _ in measured.models[0])
    assert speed.source
    assert speed.date


def test_an_unknown_name_is_told_the_names() -> None:
    with pytest.raises(InputError, match="published:maxtext-1256"):
        published_training_speed("published:nobody")
