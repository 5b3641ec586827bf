"""The installed distribution: its version, its packages, and what other distributions add to its registries."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from scaling.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

NAME = "moe-scaling"
_PACKAGES = ("analysis", "sweeps")
# Optional packages, each with the extra that installs it.
_EXTRAS = {
    **dict.fromkeys(("jax", "jaxlib", "flax", "optax", "orbax", "tokenizers"), "train"),
    **dict.fromkeys(("datasets", "sentencepiece"), "data"),
    **dict.fromkeys(("gymnax", "six"), "rl"),
    "ray": "sweep",
    **dict.fromkeys(("matplotlib", "typst"), "report"),
    "tokamax": "gpu",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    **dict.fromkeys(("mlflow", "sqlalchemy"), "mlflow"),
}
T = TypeVar("T")


def version() -> str:
    """The version that is installed; "0+unknown" of a checkout that never was."""
    from importlib import metadata  # a sixth of the command line's start

    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def require_own_packages() -> None:
    """Check that `analysis` and `sweeps` are the packages installed beside `scaling`.

    Raises InputError naming the file or folder that hides one of them, and the remedy.
    """
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in _PACKAGES:
        found = _place(name)
        if found is None:
            raise InputError(f"the package `{name}` of {NAME} is not installed: pip install --force-reinstall {NAME}")
        if os.path.realpath(found) != os.path.join(root, name):
            raise InputError(
                f"{found} hides the package `{name}` of {NAME}: rename it, run from another folder, or take its folder "
                "off PYTHONPATH"
            )


def require_installed(what: str, *modules: str) -> None:
    """Check that optional packages are installed. Raises InputError: `what` needs them, and how to install them."""
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}: {_install(missing)}")


def import_failed(error: ImportError) -> InputError | None:
    """The error of a command that an optional package stops; None where another import failed, which is a defect."""
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRAS:
        return None
    lost = isinstance(error, ModuleNotFoundError) and error.name == module
    wrong = "is not installed" if lost else f"cannot be imported ({error})"
    return InputError(f"{module} {wrong}: {_install([module])}")


def _install(modules: Sequence[str]) -> str:
    return f"pip install '{NAME}[{','.join(dict.fromkeys(_EXTRAS[module] for module in modules))}]'"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # something stands in its way
        return False


def _place(name: str) -> str | None:
    """Where a package's folder, or a module's file, lies; None where there is none. Imports nothing."""
    module = sys.modules.get(name)
    spec = importlib.util.find_spec(name) if module is None else module.__spec__
    if spec is None:
        return getattr(module, "__file__", None)
    return next(iter(spec.submodule_search_locations or ()), spec.origin)


class Registry(Mapping[str, T], Generic[T]):
    """Values by name: our `own`, then those that other distributions declare as entry points of `group`.

    `places` are more of ours, `module:NAME`, whose module is imported when the value is asked for.
    An entry point names one value of type `kind`. Entry points are listed when a name that is not ours is first asked
    for, or all names are, and each is loaded when its value is. Both raise InputError naming the distribution at fault:
    one that takes a name twice, one that cannot be imported, one whose value is something else.
    """

    def __init__(self, group: str, kind: type[T], own: dict[str, T], places: Mapping[str, str] | None = None) -> None:
        self.group, self.kind, self.own, self.places = group, kind, own, places or {}
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name in self.own:
            return self.own[name]
        if name not in self._loaded:
            place = self.places.get(name)
            self._loaded[name] = self._load(self._entries[name]) if place is None else pkgutil.resolve_name(place)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter((*self._ours, *self._entries))

    def __len__(self) -> int:
        return len(self._ours) + len(self._entries)

    @property
    def _ours(self) -> tuple[str, ...]:
        return *self.own, *self.places

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points

        entries: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            if entry.name in self._ours or entry.name in entries:
                owner = NAME if entry.name in self._ours else _distribution(entries[entry.name])
                raise InputError(f"{self._declared(entry)}: {owner} has that name already; uninstall one of them")
            entries[entry.name] = entry
        return entries

    def _load(self, entry: EntryPoint) -> T:
        try:
            value = entry.load()
        except Exception as error:  # whatever another package does wrong on import
            cause = f"{type(error).__name__}: {error}"
            raise InputError(f"{self._declared(entry)} cannot be loaded ({cause}); mend or uninstall it") from error
        if not isinstance(value, self.kind):
            found = type(value).__name__
            raise InputError(f"{self._declared(entry)} must be a {self.kind.__name__}, found a {found} ({entry.value})")
        if getattr(value, "name", entry.name) != entry.name:
            raise InputError(f"{self._declared(entry)} calls itself {getattr(value, 'name', '')!r}: use one name")
        return value

    def _declared(self, entry: EntryPoint) -> str:
        return f"package {_distribution(entry)}: entry point {entry.name!r} of {self.group}"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "(unnamed)"
