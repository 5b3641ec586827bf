"""A cell is the same on one device and on several: data, experts, or both spread over them."""

import os
import subprocess
import sys
from pathlib import Path


def test_steps_and_evaluation_on_several_devices_equal_those_on_one():
    script = Path(__file__).with_name("on_devices.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" ok\n") == 16, ended.stdout
