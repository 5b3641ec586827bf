"""Two raylets on this machine: a node that is lost midway, and one that does not see the study's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import fakes
import pytest
from cluster import RAY
from families import finish, start
from in_turn import require_same_as_undisturbed, said, steps_of, wait_for
from places import HERE, ROOT, Place

GRID = f"{{d_model: [16, 32], tokens: 1K, seed: {fakes.STEPS}}}"


@contextmanager
def cluster(*options: str) -> Iterator[subprocess.Popen[str]]:
    with tempfile.TemporaryDirectory(prefix="two-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(HERE / "cluster.py"), folder, *options]
        nodes = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield nodes
        finally:
            nodes.communicate(timeout=60)


@pytest.mark.slow
def test_a_node_is_lost_midway(place: Place) -> None:
    with cluster() as nodes:
        assert nodes.stdout is not None
        assert nodes.stdin is not None
        options = json.dumps({"address": nodes.stdout.readline().strip()})
        family = start(place, place.grid(GRID), "ray", FAKE_SECONDS="0", FAKE_STEPS="200", FAKE_OPTIONS=options)
        try:
            wait_for(lambda: len({line.split()[0] for line in place.noted("step")}) == 2, family)
            nodes.stdin.write("lose the second\n")
            nodes.stdin.flush()
            assert nodes.stdout.readline() == "lost\n"
            assert family.ended() == 0
        finally:
            family.kill()
    assert any("node was lost; it is tried again" in line for line in said(place))
    assert any("has to be a folder that all nodes of the cluster share" in line for line in said(place))
    require_same_as_undisturbed(place, GRID)
    assert not (place.out / ".ray").exists()


@pytest.mark.slow
def test_a_node_that_does_not_see_the_folder_is_named_at_once(place: Place) -> None:
    place.out.mkdir()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make mount namespaces")
    with cluster("blind", str(place.out)) as nodes:
        assert nodes.stdout is not None
        options = json.dumps({"address": nodes.stdout.readline().strip()})
        family = start(place, place.grid(GRID), "ray", FAKE_SECONDS="0", FAKE_STEPS="4", FAKE_OPTIONS=options)
        try:
            assert family.ended() == 1
        finally:
            family.kill()
    assert "on a cluster the study's folder must be one that all nodes share" in said(place)[-1]
    assert str(place.out) in said(place)[-1]
    assert not steps_of(place), "before anything is trained"
    finish(place, place.grid(GRID), "inline", FAKE_STEPS="4")


@pytest.mark.slow
def test_a_sweep_is_submitted_as_a_job(place: Place) -> None:
    """It joins the cluster that runs it, by the address in its environment."""
    pytest.importorskip("aiohttp", reason="jobs need ray[default]")
    pytest.importorskip("opencensus", reason="jobs need ray[default]")
    grid = place.grid("{d_model: [16, 32], tokens: 1K}")
    with cluster("jobs") as nodes:
        assert nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        job = [sys.executable, str(HERE / "driver.py"), str(grid), str(place.out), "ray"]
        submit = [RAY, "job", "submit", "--address", address, "--", *job]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        ended = subprocess.run(submit, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert "succeeded" in ended.stdout
    require_same_as_undisturbed(place, "{d_model: [16, 32], tokens: 1K}")
