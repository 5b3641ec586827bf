"""A cell gives the same results on one device and on several, with data, experts or both split."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Cases of on_devices.py with a number of devices: data, experts, or both split.
DEFAULT = ["dense:8", "experts:8", "capacity:4", "bias:4", "tsallis:4"]
SLOW = ["dense:2", "experts:2", "experts:4", "experts on each:2", "do not divide:2", "random:2", "annealed:4"]
SLOW += ["factorised:2", "soft:2", "expert choice:4", "muon:4", "adafactor:4", "reference:4"]


@pytest.mark.parametrize("cases", [DEFAULT, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["some", "the others"])
def test_steps_and_evaluation_on_several_devices_equal_those_on_one(cases):
    script = Path(__file__).parents[1] / "support" / "on_devices.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    ended = subprocess.run(
        [sys.executable, script, *cases], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" ok\n") == len(cases), ended.stdout
