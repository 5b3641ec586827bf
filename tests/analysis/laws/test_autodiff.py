"""Derivatives are exact: against complex steps, and plain arrays pass through."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.laws.autodiff import Dual, exp, log, log_sum_exp


def formula(x, y, data):
    """Uses every operation, on both sides."""
    return (
        log_sum_exp(x * data - 2.0, (1.0 - y) / (3.0 + x), log(x * x + data)) + exp(-y) * (2.0 / x - data) + (y - 1.0)
    )


def complex_formula(x, y, data):
    terms = (x * data - 2.0, (1.0 - y) / (3.0 + x), np.log(x * x + data))
    return np.log(sum(np.exp(t) for t in terms)) + np.exp(-y) * (2.0 / x - data) + (y - 1.0)


def test_partials_equal_complex_steps():
    x, y, data = np.array([[0.7], [1.9]]), np.array([[0.3], [2.2]]), np.array([0.1, 1.0, 4.0])
    result = formula(Dual(x, {"x": 1.0}), Dual(y, {"y": 1.0}), data)
    assert result.value == pytest.approx(complex_formula(x, y, data), rel=1e-13)
    step = 1e-30j  # the imaginary part is the derivative to the last digit: nothing is subtracted
    assert result.partials["x"] == pytest.approx(complex_formula(x + step, y, data).imag / 1e-30, rel=1e-12)
    assert result.partials["y"] == pytest.approx(complex_formula(x, y + step, data).imag / 1e-30, rel=1e-12)


def test_arrays_pass_through_and_stay_on_the_left():
    data = np.array([1.0, 2.0])
    assert isinstance(log_sum_exp(data, data), np.ndarray)
    product = data * Dual(np.array([[3.0]]), {"x": 1.0})
    assert isinstance(product, Dual)
    assert product.value.tolist() == [[3.0, 6.0]]


def test_log_sum_exp_does_not_overflow():
    assert log_sum_exp(np.array([900.0]), np.array([900.0])) == pytest.approx(900 + np.log(2))
