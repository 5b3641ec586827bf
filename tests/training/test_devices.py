"""A cell is the same on one device and on several: data, experts, or both spread over them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEFAULT = {"dense": 2, "experts": 3, "capacity": 1, "bias": 1, "tsallis": 1}
SLOW = dict.fromkeys(
    ("experts on each", "do not divide", "random", "annealed", "factorised", "soft", "expert choice", "reference"), 1
)


@pytest.mark.parametrize("cases", [DEFAULT, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["some", "the others"])
def test_steps_and_evaluation_on_several_devices_equal_those_on_one(cases):
    """By name of the case and on how many numbers of devices it is tried."""
    script = Path(__file__).parents[1] / "support" / "on_devices.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    ended = subprocess.run(
        [sys.executable, script, *cases], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" ok\n") == sum(cases.values()), ended.stdout
