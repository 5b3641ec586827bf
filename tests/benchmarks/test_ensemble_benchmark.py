"""The benchmark of the ensemble: one study of each kind, and what is counted."""

import numpy as np
import pytest

from benchmarks.ensemble import EXPERTS, KEPT, RUNS, study, summary


@pytest.mark.slow
def test_a_study_states_probabilities_and_counts_regret():
    records = study(2)
    assert [(one["runs"], one["kept"]) for one in records] == [(count, kept) for count in RUNS for kept in KEPT]
    for one in records:
        assert one["best"] in EXPERTS
        assert 0.0 <= sum(one["stated"]) <= 1.0 + 1e-9
        assert one["regret"] >= 0.0
        assert np.isclose(sum(one["weights"].values()), 1.0)
        assert (one["law"] in one["weights"]) == (one["kept"] == "all")
        assert (one["regret"] == 0.0) == (one["chosen"] == one["best"])
    assert {row["studies"] for row in summary(records)} == {1}
