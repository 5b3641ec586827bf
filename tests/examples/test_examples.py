"""The examples: linted, and run as far as a machine without Slurm, Kubernetes and Docker can."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.stopping.signals import GRACE_S

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples/slurm/sweep.sbatch"
RAYJOB = ROOT / "examples/kubernetes/rayjob.yaml"
DOCKERFILE = ROOT / "examples/docker/Dockerfile"

# Stand-ins: `srun` runs here what it is given, `ray start` waits, `scaling` ends as one that was sent SIGTERM.
STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "here\\nthere\\n"; else echo "scontrol $*" >>"$LOG"; fi',
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "ray": 'echo "ray $*" >>"$LOG"; [ "$1" = status ] || exec sleep 60',
    "scaling": 'trap \'kill %1; exit 143\' TERM; echo "scaling $*" >>"$LOG"; sleep "$SWEEP_S" & wait',
}


def slurm(folder: Path, sweep_s: float, *, stop: bool) -> tuple[int, list[str]]:
    """The exit status of the Slurm script, and the commands that it called."""
    tools, log = folder / "tools", folder / "log"
    tools.mkdir(parents=True)
    for name, script in STUBS.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tools / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "x", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    environ = os.environ | job | {"LOG": str(log), "SWEEP_S": str(sweep_s), "PATH": f"{tools}:{os.environ['PATH']}"}
    script = subprocess.Popen(["bash", str(SLURM), "grid.yaml", "study"], env=environ, start_new_session=True)
    try:
        if stop:
            end = time.monotonic() + 60
            while "scaling" not in (log.read_text() if log.exists() else "") and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.2)  # until the script has its trap
            script.send_signal(signal.SIGTERM)
        return script.wait(60), log.read_text().splitlines()
    finally:
        left = script.poll() is None or not is_gone(script.pid)
        if left:
            os.killpg(script.pid, signal.SIGKILL)
        assert not left


def is_gone(group: int) -> bool:
    """Whether no process of a group is left; what has ended may take a moment to go."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_the_slurm_script_starts_a_node_each_and_its_status_is_that_of_the_sweep(tmp_path: Path) -> None:
    status, called = slurm(tmp_path, 1.0, stop=False)
    assert status == 0
    address = "here:20007"
    assert sum(line.startswith("ray start") for line in called) == 2
    assert any("--head --port=20007" in line for line in called)
    assert any(f"--address={address}" in line for line in called)
    assert [line for line in called if line.startswith("scaling")] == [
        f"scaling sweep run grid.yaml --out study --address {address}"
    ]
    assert not any("requeue" in line for line in called)


def test_the_slurm_script_passes_sigterm_on_and_queues_the_job_again(tmp_path: Path) -> None:
    status, called = slurm(tmp_path, 60, stop=True)
    assert status == 143
    assert called[-1] == "scontrol requeue 7"
    asked = re.search(r"--signal=B:TERM@(\d+)", SLURM.read_text())
    assert asked is not None
    assert int(asked[1]) > GRACE_S


def test_the_slurm_script_is_sound() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(SLURM)], check=True)


def test_the_rayjob_has_the_fields_of_its_schema() -> None:
    """Names and values of KubeRay's `RayJobSpec` (ray-operator/apis/ray/v1/rayjob_types.go)."""
    job, claim = yaml.safe_load_all(RAYJOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= {
        "submissionMode", "entrypoint", "backoffLimit", "submitterConfig", "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished", "activeDeadlineSeconds", "rayClusterSpec",
    }  # fmt: skip
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")
    assert spec["backoffLimit"] > 0
    assert set(spec["submitterConfig"]) == {"backoffLimit"}
    assert spec["entrypoint"].startswith("scaling sweep run ")
    cluster = spec["rayClusterSpec"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert cluster["rayVersion"] == pins["ray"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    for pod in pods:
        require_pod(pod, claim, spec["entrypoint"])
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def require_pod(pod: dict[str, Any], claim: dict[str, Any], entrypoint: str) -> None:
    """A pod has time for checkpoints, and what the command names lies on volumes that it mounts."""
    assert pod["terminationGracePeriodSeconds"] > GRACE_S
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/study"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for path in re.findall(r"/\S+", entrypoint):
        assert any(path.startswith(f"{mounted}/") for mounted in mounts), path
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["SCALING_CACHE"].startswith("/study/"), "all nodes share it"
    assert float(environment["RAY_JOB_STOP_WAIT_TIME_S"]) > GRACE_S


def test_kubectl_reads_the_rayjob(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl") or pytest.skip("there is no kubectl")
    shutil.copy(RAYJOB, tmp_path)
    (tmp_path / "kustomization.yaml").write_text("resources: [rayjob.yaml]\n")
    shown = subprocess.run([kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert sorted(document["kind"] for document in yaml.safe_load_all(shown.stdout)) == [
        "PersistentVolumeClaim", "RayJob"
    ]  # fmt: skip


def test_the_image_has_what_it_copies_and_installs() -> None:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    assert {instruction for instruction, _ in lines} == known
    copied = [source for instruction, rest in lines if instruction == "COPY" for source in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt"} <= {*copied}
    extras = re.search(r"'\.\[([\w,]+)\]'$", next(rest for _, rest in lines if "pip install" in rest))
    assert extras is not None
    assert {*extras[1].split(",")} <= {*project["optional-dependencies"]}
    assert "wget" in text, "KubeRay's probes need it"
    assert [rest for instruction, rest in lines if instruction == "CMD"][-1].startswith("["), "PID 1 gets the signals"
