"""The comparison with another PQN: its arithmetic on planted trainings, and a micro training of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import rl_peer
from benchmarks.rl_peer import OURS, TORCH, compared


def rows(ours: list[float], theirs: list[float]) -> list[dict[str, Any]]:
    return [
        {"by": by, "game": "breakout", "seed": seed, "frames": 10, "episode_return": score, "random_return": 1.0}
        for by, scores in ((OURS, ours), (TORCH, theirs))
        for seed, score in enumerate(scores)
    ]


def test_the_interval_is_that_of_welch() -> None:
    """Variances 1 and 4 of 4 runs each: se^2 = 5/4, and 25/16 / (1/16 + 16/16) x 3 = 4.41 degrees of freedom, whose
    97.5 % quantile lies between those of 4 and 5, 2.776 and 2.571."""
    unit = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(5 / 3)  # variance 1
    found = compared(rows((10 + unit).tolist(), (9 + 2 * unit).tolist()), "breakout", "episode_return")
    assert found.difference == pytest.approx(1.0, abs=1e-12)
    half = (found.high - found.low) / 2
    assert 2.571 < half / np.sqrt(5 / 4) < 2.776
    assert found.equal
    assert found.could_be_missed == pytest.approx((1 + half) / 8, rel=1e-12)  # theirs is 8 above random
    assert not compared(rows((20 + unit).tolist(), (9 + unit).tolist()), "breakout", "episode_return").equal


def test_trainings_of_the_file_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Child:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> Child:
            return self

        def __exit__(self, *_: object) -> None: ...
        def ask(self, **request: Any) -> dict[str, float]:
            asked.append((TORCH, request["game"], request["seed"]))
            return dict.fromkeys(rl_peer.MEASURED, 2.0)

    def ours(game: str, seed: int, frames: int) -> dict[str, float]:
        asked.append((OURS, game, seed))
        return dict.fromkeys(rl_peer.MEASURED, 3.0)

    monkeypatch.setattr(rl_peer, "Peer", Child)
    monkeypatch.setattr(rl_peer, "trained_by_us", ours)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"by": OURS, "game": "asterix", "seed": 0, "frames": 10}) + "\n")
    assert len(list(rl_peer.rows_of(file, 10, 1))) == 4
    assert asked == [(OURS, "breakout", 0), (TORCH, "breakout", 0), (TORCH, "asterix", 0)]
    assert len(list(rl_peer.rows_of(file, 10, 1))) == 4
    assert len(asked) == 3


def test_the_targets_of_the_other_implementation_are_ours() -> None:
    """Two programs written apart give the same numbers where episodes end, are cut and go on."""
    pytest.importorskip("torch")
    pytest.importorskip("minatar")
    from benchmarks.rl_torch import lambda_targets
    from scaling.tasks.rl.returns import lambda_returns

    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 12, 9)).astype(np.float32)
    ended, cut = rng.random((2, 12, 9)) < 0.15
    cut &= ~ended
    theirs, ours = (find(reward, value, ended, cut, 0.9, 0.65) for find in (lambda_targets, lambda_returns))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)  # float32
