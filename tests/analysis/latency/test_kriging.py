"""Kriging of a latency law: the likelihood by an independent judge, closed forms of its draws, planted departures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal
from synthetic_latency import CPU, TRUTH, frame

from analysis.latency import kriging
from analysis.latency.kriging import Covariance, MeasuredSteps, departures_of, estimate, places_of, told
from analysis.latency.law import design_matrix, fit_latency, latency_document, left_out, load_latency_law
from analysis.latency.table import LatencyTable
from scaling.errors import InputError
from scaling.files import write_json
from scaling.serving.departures import matern, times
from scaling.serving.service import SERVICE

LENGTHS = (3.0, 3.0, 2.0, 4.0, 3.0, 4.0)
PLANTED, NOISE = Covariance(LENGTHS, 0.15**2, 0.03), 0.03


def planted(seed: int) -> tuple[LatencyTable, np.ndarray]:
    """A table of a machine that departs from the law as a Gaussian process does, and the departures."""
    rng = np.random.default_rng(seed)
    exact = frame()
    places = places_of(LatencyTable(exact, "planted"))
    departed = np.zeros(len(exact))
    for phase in kriging.PHASES:
        rows = exact["phase"].eq(phase).to_numpy()
        covariance = PLANTED.variance * matern(places[rows], places[rows], LENGTHS)
        departed[rows] = np.linalg.cholesky(covariance + 1e-9 * np.eye(rows.sum())) @ rng.standard_normal(rows.sum())
    measured = exact["time_ms"] * np.exp(departed + NOISE * rng.standard_normal(len(exact)))
    return LatencyTable(exact.assign(time_ms=measured), "planted"), departed


def few(count: int = 25, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 5, (count, 6)), 0.1 * rng.standard_normal(count)


def test_the_density_is_that_of_a_multivariate_normal_and_its_gradient_that_of_differences():
    places, departures = few()
    apart = np.abs(places[:, None] - places[None])
    logs = np.log([2.0, 3.0, 1.0, 5.0, 2.0, 4.0, 0.02, 0.001])
    covariance = 0.02 * matern(places, places, (2.0, 3.0, 1.0, 5.0, 2.0, 4.0)) + 0.001 * np.eye(25)
    prior = 0.5 * np.sum(((logs[:6] - np.log(3)) / 1.5) ** 2)
    judged = -multivariate_normal(np.zeros(25), covariance).logpdf(departures) + prior - 12.5 * np.log(2 * np.pi)
    value, _ = kriging._against(logs, apart, departures)
    assert value == pytest.approx(judged, rel=1e-10)
    off = check_grad(
        lambda x: kriging._against(x, apart, departures)[0], lambda x: kriging._against(x, apart, departures)[1], logs
    )
    assert off < 1e-3 * np.linalg.norm(kriging._against(logs, apart, departures)[1])  # differences of 1.5e-8


def test_a_measured_step_departs_as_measured_without_noise_and_draws_agree():
    places, departures = few()
    design = np.exp(-departures)[:, None]  # of a law of one term with the coefficient 1
    steps = MeasuredSteps(design, places, np.ones(25, dtype=bool), {"decode": Covariance(LENGTHS, 0.04, 1e-6)})
    found = steps.mean(np.ones(1)).decode.factor(places)
    clipped = departures_of(design, np.ones(1))
    assert np.log(found) == pytest.approx(clipped, abs=1e-6)
    drawn = [one.decode.factor(places) for one in steps.draws(np.ones((4, 1)))]
    assert np.log(drawn) == pytest.approx(np.tile(clipped, (4, 1)), abs=1e-5)
    assert steps.mean(np.ones(1)).prefill is None


def test_draws_have_the_mean_and_covariance_of_the_posterior():
    places, departures = few()
    covariance = Covariance(LENGTHS, 0.04, 0.05)
    steps = MeasuredSteps(np.exp(-departures)[:, None], places, np.ones(25, dtype=bool), {"decode": covariance})
    asked, _ = few(6, seed=3)
    count = 4000
    drawn = np.log([one.decode.factor(asked) for one in steps.draws(np.ones((count, 1)))])
    own = 0.04 * matern(places, places, LENGTHS) + 0.05**2 * np.eye(25)
    across = 0.04 * matern(asked, places, LENGTHS)
    mean = across @ np.linalg.solve(own, departures_of(np.exp(-departures)[:, None], np.ones(1)))
    posterior = 0.04 * matern(asked, asked, LENGTHS) - across @ np.linalg.solve(own, across.T)
    # Means of 4,000 draws have a standard error of at most .2 / 63, covariances the random features', v / sqrt(512).
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.01)
    assert np.cov(drawn.T) == pytest.approx(posterior, abs=3 * 0.04 / np.sqrt(512))
    assert np.log(steps.mean(np.ones(1)).decode.factor(asked)) == pytest.approx(mean, abs=1e-12)


def test_planted_covariances_come_back():
    """72 shapes would be few for six lengths; variance and noise are what the width of prices hangs on."""
    found = []
    for seed in range(4):
        table, _ = planted(seed)
        rows = table.frame["phase"].eq("decode").to_numpy()
        noisy = np.log(table.column("time_ms") / frame()["time_ms"].to_numpy())[rows]
        found.append(estimate(places_of(table)[rows], noisy))
    # Of one sample with such long lengths the variance is known to a factor of about two; of four, to 1.5.
    assert 0.5 < np.exp(np.mean(np.log([one.variance / PLANTED.variance for one in found]))) < 2
    assert np.mean([one.noise for one in found]) == pytest.approx(NOISE, rel=0.4)


def test_shapes_left_out_are_told_better_and_as_surely_as_stated():
    better, inside = [], []
    for seed in range(3):
        table, departed = planted(seed)
        law = fit_latency(table, CPU, np.random.default_rng(0), resamples=200)
        alone = np.abs(left_out(table, CPU, "shape")["error"]).median()
        told_too = np.abs(left_out(table, CPU, "shape", law.steps)["error"]).median()
        better.append(told_too / alone)
        truth = frame()["time_ms"].to_numpy() / 1e3 * np.exp(departed)
        design, shapes = design_matrix(table, CPU), table.shapes.to_numpy() % 10
        out = shapes == 0
        decode = table.frame["phase"].eq("decode").to_numpy()
        kept = MeasuredSteps(design[~out], places_of(table)[~out], decode[~out], law.steps.covariances)
        terms = design * table.seconds[:, None]
        for phase in kriging.PHASES:
            asked = out & (decode == (phase == "decode"))
            times_drawn = [
                terms[asked] @ row * getattr(one, phase).factor(places_of(table)[asked])
                for row, one in zip(law.draws, kept.draws(law.draws), strict=True)
            ]
            low, high = np.quantile(times_drawn, [0.025, 0.975], axis=0)
            inside += list((low <= truth[asked]) & (truth[asked] <= high))
    assert np.mean(better) < 0.8
    assert 0.85 <= np.mean(inside) <= 1.0  # rows of one shape depart together: about 20 independent ones


def test_expert_counts_that_were_measured_nearby_share_their_error():
    """What is compared are prices of E = 8 and 32 at one width: their ratio is surer than either would be alone."""
    table, _ = planted(0)
    law = fit_latency(table, CPU, np.random.default_rng(0), resamples=200)
    service = law.measured(SERVICE)
    place = {e: (e, 2 if e == 32 else 1, 128, 4, 32, 512) for e in (8, 32)}
    drawn = {e: np.log([times(s.departures.decode, place[e]) for s in law.speeds.services(service, e)]) for e in place}
    ratio = np.std(drawn[8] - drawn[32])
    assert ratio < 0.5 * np.std(np.log(law.ratios)) * np.sqrt(2)
    alone = replace(law, steps=None)
    assert alone.measured(SERVICE).departures.decode is None
    spread = [one.efficiency.flops_share for one in alone.speeds.services(alone.measured(SERVICE), 8)]
    assert len(set(spread)) > len(spread) / 2, "without the steps, the scatter of shapes left out is met"


def test_a_law_with_its_steps_is_read_as_it_was_written(tmp_path):
    table, _ = planted(0)
    law = fit_latency(table, CPU, np.random.default_rng(0), resamples=200)
    write_json(tmp_path / "law.json", latency_document(law))
    again = load_latency_law(tmp_path / "law.json")
    asked = (16, 2, 100, 3, 8, 100)
    for one, other in zip((law, again), (again, law), strict=True):
        ours, theirs = (each.measured(SERVICE).departures for each in (one, other))
        assert times(ours.decode, asked) == times(theirs.decode, asked)
        assert times(ours.prefill, asked) == times(theirs.prefill, asked)
    assert again.terms_alone == law.terms_alone


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"places": np.zeros((25, 5))}, "`places`"),
        ({"design": np.zeros((24, 1))}, "`design`"),
        ({"design": np.full((25, 1), np.nan)}, "`design`"),
        ({"covariances": {"training": Covariance(LENGTHS, 0.04, 0.1)}}, "`covariances`"),
    ],
)
def test_steps_that_do_not_hold_together_are_refused(change, named):
    steps = MeasuredSteps(np.ones((25, 1)), np.zeros((25, 6)), np.ones(25, dtype=bool), {})
    with pytest.raises(InputError, match=named):
        replace(steps, **change)
    with pytest.raises(InputError, match="lengths"):
        Covariance((1.0,), 0.1, 0.1)
    with pytest.raises(InputError, match="noise"):
        Covariance(LENGTHS, 0.1, 0.0)


def test_too_few_rows_have_no_departures():
    few_rows = LatencyTable(frame([(e, 1, 64, 2) for e in (1, 4, 8, 16, 32)]), "planted")
    assert fit_latency(few_rows, CPU, np.random.default_rng(0), resamples=200).steps is None
    table, _ = planted(0)
    design, nobody = design_matrix(table, CPU), np.zeros(len(table), dtype=bool)
    coefficients = TRUTH.coefficients()[: design.shape[1]]
    assert told({}, table, design, coefficients, ~nobody) == pytest.approx(1.0)
