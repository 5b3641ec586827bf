"""The distribution: what is in a wheel, what it does outside the repository, and what other distributions add to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from analysis.laws import LAWS, Law
from scaling.distribution import _EXTRAS, Registry
from scaling.errors import InputError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, cwd: Path, path: Path | str = ROOT, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A Python command in another folder, with `path` before everything that is installed."""
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


# ------------------------------------------------------------------------------------------ wheel and source archive


@pytest.mark.slow
def test_wheel_and_sdist_work_outside_the_repository(tmp_path: Path) -> None:
    """Built from a copy without network, unpacked, and used from an empty folder: data files are there."""
    tree, built = tmp_path / "tree", tmp_path / "dist"
    for name in ("scaling", "sweeps", "analysis"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run("-m", "build", "--no-isolation", "--outdir", str(built), str(tree), cwd=tmp_path)
    (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.name.startswith(f"moe_scaling-{PROJECT['version']}-py3")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"analysis/report/report.typ", "sweeps/grids/quickstart.yaml", "scaling/py.typed", "README.md"} <= names
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    laws = run("-m", "scaling.cli.main", "laws", cwd=elsewhere, path=site)
    assert "joint-moe" in laws.stdout
    run("-m", "scaling.cli.main", "sweep", "plan", "quickstart", cwd=elsewhere, path=site)
    script = "import scaling; print(scaling.__file__); print(scaling.__version__); print(scaling.law('yun').name)"
    place, version, law = run("-c", script, cwd=elsewhere, path=site).stdout.splitlines()
    assert Path(place) == site / "scaling" / "__init__.py"
    assert (version, law) == (PROJECT["version"], "yun")


def test_every_extra_that_a_message_names_is_there() -> None:
    """`pip install 'moe-scaling[...]'` in the code, the README and the pages."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.py")]
    code = [path for name in ("scaling", "sweeps", "analysis", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    named = set()
    for path in (*pages, *code):
        text = path.read_text(encoding="utf-8")
        assert "install scaling" not in text, path
        assert "'scaling[" not in text, path
        named |= {part.partition("]")[0] for part in text.split("moe-scaling[")[1:]}
    named |= set(_EXTRAS.values())
    assert {"train", "sweep", "report"} <= named
    assert {extra for names in named for extra in names.split(",")} <= {*PROJECT["optional-dependencies"], "..."}


def test_packages_carry_their_types() -> None:
    for name in ("scaling", "sweeps", "analysis"):
        assert (ROOT / name / "py.typed").is_file()


# ------------------------------------------------------------------------------------------------------ entry points

PLUGIN = """
from dataclasses import replace
import scaling
from scaling.config.registry import Experts, Router
LAW = replace(scaling.law("hoffmann"), name="theirs", source="their paper")
ROUTER = Router("their_plugin:Gate", "2600.00001", options=("jitter",))
EXPERTS = Experts("their_plugin:gate", "2600.00002", lambda model: (0, model.d_model))
DEVICE = scaling.Device("abacus", "An abacus", 1e12, 1e11, 1e10, 0.5, "bfloat16", "their sheet", "their price")
class Gate: ...
def gate(): ...
"""
KINDS = {"laws": "LAW", "routers": "ROUTER", "experts": "EXPERTS", "devices": "DEVICE"}
NAMES = {"laws": "theirs", "routers": "their-gate", "experts": "their-form", "devices": "abacus"}


def distribution(folder: Path, entries: dict[str, str], module: str = PLUGIN, name: str = "their-plugin") -> Path:
    """A folder in which a distribution with these entry points, {group.name: value}, lies installed."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name.replace('-', '_')}.py").write_text(module)
    info = folder / f"{name.replace('-', '_')}-2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.3\n")
    lines = [
        f"[scaling.{group}]\n{entry} = {value}"
        for (group, entry), value in ((k.split("."), v) for k, v in entries.items())
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_laws_routers_experts_and_devices_of_another_distribution_are_known(tmp_path: Path) -> None:
    entries = {f"{group}.{NAMES[group]}": f"their_plugin:{value}" for group, value in KINDS.items()}
    site = distribution(tmp_path / "site", entries)
    script = """
import sys, scaling
from scaling.config.model import ModelConfig
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.serving.devices import names
law = scaling.law("hoffmann"), ROUTERS["topk"], scaling.device("h100")
print("their_plugin" in sys.modules)
print(scaling.law("theirs").source, "theirs" in scaling.laws().index)
print(ROUTERS["their-gate"].load().__name__, EXPERTS["their-form"].load().__name__)
print(ModelConfig(router="their-gate", n_experts=4, top_k=2).router_facts.source)
print(scaling.device("abacus").peak_flops, names()[-2:])
"""
    lazy, law, router, model, device = run("-c", script, cwd=site, path=f"{site}{os.pathsep}{ROOT}").stdout.splitlines()
    assert lazy == "False"  # nothing of it is imported before it is asked for
    assert law == "their paper True"
    assert router == "Gate gate"
    assert model == "2600.00001"
    assert device == "1000000000000.0 ('abacus', 'cpu')"


@pytest.mark.parametrize(
    ("entries", "module", "said"),
    [
        ({"laws.theirs": "their_plugin:LAW"}, "import nowhere", ["laws", "theirs", "ModuleNotFoundError"]),
        ({"laws.theirs": "their_plugin:MISSING"}, PLUGIN, ["AttributeError"]),
        ({"laws.theirs": "their_plugin:DEVICE"}, PLUGIN, ["Law", "Device"]),
        ({"laws.other": "their_plugin:LAW"}, PLUGIN, ["other", "theirs"]),
        ({"laws.hoffmann": "their_plugin:LAW"}, PLUGIN, ["hoffmann", "moe-scaling"]),
    ],
    ids=["import fails", "no such value", "another kind", "another name", "a name of ours"],
)
def test_a_broken_entry_point_names_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, str], module: str, said: list[str]
) -> None:
    monkeypatch.syspath_prepend(distribution(tmp_path / "site", entries, module))
    monkeypatch.delitem(sys.modules, "their_plugin", raising=False)
    laws = Registry("scaling.laws", Law, LAWS.own)
    with pytest.raises(InputError, match=r"^package their-plugin 2\.3: ") as caught:
        list(laws.items())
    assert all(word in str(caught.value) for word in (*said, next(iter(entries)).partition(".")[2]))
    assert laws["joint-moe"] is LAWS["joint-moe"]  # ours do without theirs


# ------------------------------------------------------------------------------------------ packages of another's name


@pytest.mark.parametrize(("name", "of"), [("analysis", "analysis.py"), ("sweeps", "sweeps/__init__.py")])
def test_a_package_that_hides_ours_is_named_first(tmp_path: Path, name: str, of: str) -> None:
    """By the command line in its first line, with exit status 2, and by the face when it is first used."""
    place = tmp_path / of
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    command = run("-m", "scaling.cli.main", "laws", cwd=tmp_path, path=path, status=2)
    assert command.stderr.startswith(f"error: {tmp_path / of.partition('/')[0]} hides the package `{name}`")
    assert command.stdout == ""
    face = run("-c", "import scaling; scaling.load", cwd=tmp_path, path=path, status=1)
    assert str(tmp_path / name) in face.stderr.splitlines()[-1]
