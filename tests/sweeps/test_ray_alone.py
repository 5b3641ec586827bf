"""Ray of our own: whom it listens to, whom it lets in, what it keeps from a worker that died."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import HERE, ROOT

from sweeps.ray_executor.pool import with_last_words

DASHBOARD = 8265  # its usual port


def test_ray_listens_to_this_machine_and_lets_in_who_knows_its_token(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    home = tmp_path / "home"
    home.mkdir()
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, str(HERE / "ray_alone.py"), str(tmp_path / "study")],
            env=environ | {"PYTHONPATH": str(ROOT), "HOME": str(home)}, capture_output=True, text=True, check=False,
            cwd=home,
        )  # fmt: skip
        if "less busy" not in ended.stderr:
            break
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    addresses = {ipaddress.ip_address(ip.removeprefix("::ffff:")) for _, ip, _ in found["listening"]}
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in found["listening"]}, "these are Ray's"
    assert all(address.is_loopback for address in addresses), found["listening"]
    assert DASHBOARD not in {port for _, _, port in found["listening"]}
    assert found["mode"] == "0o700"
    settings = found["environment"]
    assert (settings["RAY_USAGE_STATS_ENABLED"], settings["RAY_AUTH_MODE"]) == ("0", "token")
    assert len(settings["RAY_AUTH_TOKEN"]) == 64
    assert not (home / ".ray").exists(), "its token is in no file that others can read"
    assert str(home) not in found["imports_from"], "a file of the current folder is no module"
    assert str(HERE) in found["imports_from"], "that of the driver is"
    assert found["said"].splitlines()[1] == "Unknown flag in XLA_FLAGS: --x"


def test_the_last_words_of_a_worker_come_first(tmp_path: Path) -> None:
    report = "the time\nThe actor died unexpectedly.\n\tactor_id: ab\n\tpid: 31\n"
    assert with_last_words(report, tmp_path) == report, "Ray lost its log"
    (tmp_path / "worker-ab-01-31.err").write_text(":job_id:01\n:actor_name:Call\nslow to compile\n")
    assert with_last_words(report, tmp_path) == report, "it said nothing"
    (tmp_path / "worker-cd-01-131.err").write_text("RuntimeError: of another\n")
    with (tmp_path / "worker-ab-01-31.err").open("a") as log:
        log.write("terminate called\nRuntimeError: no device\n@ 0x12 (unknown)\n")
    assert with_last_words(report, tmp_path).splitlines()[:3] == [
        "the time",
        "RuntimeError: no device",
        *report.splitlines()[1:2],
    ]
