"""Families of published lineages: the architecture of a model of any size that is built as they are.

A recommendation knows a model by N_active and E. What it costs to serve also takes its depth, width, heads and cache.
A family gives them for continuous sizes: between two members every width and depth lies on the straight line of their
logarithms, and beyond the last member the proportions of that member are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scaling.architecture import Architecture, Attention, Experts, HeadAttention, LatentAttention, Layers, Mlp
from scaling.arrays import Array, Values
from scaling.bounds import MOST_EXPERTS, MOST_FLOPS, outside
from scaling.errors import InputError
from scaling.formatting import si
from scaling.serving.hub_config import read_hub_config
from scaling.serving.public_models import PUBLIC_MODELS, public_model
from scaling.serving.service import ModelSizes

_REACH, _CELLS = 36.0, 20_000  # ln of the scale beyond the end members, and places tabulated in each stretch
_MOST_KEPT, _MOST_FOUND = 1_024, 512  # sizes of one grid that are remembered, and grids
_WHOLE = ("n_experts", "window")  # counts that are whole whatever the size

_Place = tuple[Array, Array, Array, Array]
"""Of every model: the member below, the one above, how far it is between them, and the scale beyond the end members."""


@dataclass(frozen=True, eq=False)
class ArchitectureFamily:
    """Models of continuous size with the proportions of `members`, which ascend in size and have like groups of layers.

    Depth and width grow together and heads with them, at a constant width of a head. Constant are the number of groups
    of heads (below it every head is its own), windows, latent ranks and the vocabulary. A token's experts together are
    as wide, relative to d, as those of the members, whatever E and `top_k` (None: the members' k; 1 for dense members,
    whose MLPs become experts): k is how finely that width is divided. With `n_shared` k routed and so many shared
    experts of one width divide it, instead of the members' shared experts. With `granularity` G an expert is
    2 d_model / G wide, whatever the members' are, and k (None: the whole number that comes nearest to the members'
    width) says how wide a token's experts are together. E = 1 is a dense model with an MLP of that width, shared
    experts in it, so that N_active does not depend on E.
    """

    name: str
    members: tuple[Architecture, ...]
    top_k: int | None = None
    n_shared: int | None = None
    granularity: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"`top_k` must be at least 1, found {self.top_k}")
        if self.n_shared is not None and self.n_shared < 0:
            raise InputError(f"`n_shared` must be at least 0, found {self.n_shared}")
        if self.granularity is not None and (wrong := outside(self.granularity, MOST_EXPERTS)):
            raise InputError(f"`granularity` {wrong}")
        object.__setattr__(self, "members", tuple(_in_floats(member) for member in self.members))

    @cached_property
    def _value(self) -> str:
        return repr((self.name, self.members, self.top_k, self.n_shared, self.granularity))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchitectureFamily) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    @property
    def k(self) -> int:
        """Experts of a token, shared ones apart."""
        if self.top_k is not None:
            return self.top_k
        last = self.members[-1]
        if self.granularity is None:
            return int(last.top_k)
        mlp = (last.routed or last.groups)[-1].mlp
        wide = getattr(mlp, "top_k", 1) * mlp.width / last.d_model
        if self.n_shared is not None:
            wide = wide + getattr(mlp, "shared_width", 0.0) / last.d_model - 2.0 * self.n_shared / self.granularity
        return max(1, round(float(wide) * self.granularity / 2.0))

    @property
    def source(self) -> str:
        """What is scaled."""
        names = " to ".join(dict.fromkeys((self.members[0].name, self.members[-1].name)))
        shared = "" if self.n_shared is None else f", {self.n_shared} shared"
        width = "" if self.granularity is None else f", experts of 2 d_model / {self.granularity:g}"
        return f"the proportions of {names} ({self.members[-1].source}), k = {self.k}{shared}{width}"

    def architecture(self, n_active: Values, n_experts: int) -> Architecture:
        """The model of this N_active: embeddings and head counted, routers not, as in the run table."""
        wanted = np.asarray(n_active, dtype=float)
        if wanted.size > _MOST_KEPT:
            return self._architecture(wanted, n_experts)
        key = (n_experts, wanted.shape, wanted.tobytes())
        if key not in self._found:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[key] = self._architecture(wanted, n_experts)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[tuple[int, tuple[int, ...], bytes], Architecture]:
        """Models that were described: searches ask about the same grids of sizes again and again."""
        return {}

    def _architecture(self, wanted: Array, n_experts: int) -> Architecture:
        place = np.interp(np.log(wanted), self._log_sizes, self._places)
        cell = np.clip(np.searchsorted(self._places, place, side="right") - 1, 0, len(self._places) - 2)
        slope = (np.diff(self._log_sizes) / np.diff(self._places))[cell]
        place = place + (np.log(wanted) - np.log(self._n_active(place))) / slope  # now to 1e-9
        return self._at(place, n_experts)

    def sizes(self, n_active: Values, n_experts: int) -> ModelSizes:
        """What serving that model takes."""
        return ModelSizes.of_architecture(self.architecture(n_active, n_experts))

    def model(self, n_active: float, n_experts: int | None = None) -> Architecture:
        """One model; E None: that of the largest member. Raises InputError for a size or an E that cannot be."""
        count = self.members[-1].n_experts if n_experts is None else n_experts
        for name, value in (("n_active", n_active), ("n_experts", count)):
            if wrong := outside(value, MOST_FLOPS if name == "n_active" else MOST_EXPERTS):
                raise InputError(f"`{name}` {wrong}")
        named = f"{si(n_active)} active, E = {count}, like {self.name}"
        return replace(self.architecture(n_active, count), name=named, source=self.source)

    def _n_active(self, place: Array) -> Array:
        return np.asarray(self._at(place, 1).n_active())

    @cached_property
    def _places(self) -> Array:
        """Places at which the size is tabulated: 0, 1, ... are the members."""
        last = len(self.members) - 1
        ends = [(-_REACH, 0.0), *((float(i), i + 1.0) for i in range(last)), (float(last), last + _REACH)]
        return np.unique(np.concatenate([np.linspace(low, high, _CELLS) for low, high in ends]))

    @cached_property
    def _log_sizes(self) -> Array:
        return np.log(self._n_active(self._places))

    def _at(self, place: Array, n_experts: int) -> Architecture:
        last = len(self.members) - 1
        inside = np.clip(place, 0.0, float(last))
        below = np.minimum(inside.astype(int), max(last - 1, 0))
        where = below, np.minimum(below + 1, last), inside - below, np.exp(place - inside)
        model = self.members[-1]
        width = self._between(where, lambda member: member.d_model, grows=True)
        groups = tuple(self._group(index, where, n_experts, width) for index in range(len(model.groups)))
        vocabulary = self._between(where, lambda member: member.vocab_size)
        return replace(model, name=self.name, d_model=width, vocab_size=vocabulary, groups=groups, notes=())

    def _between(self, where: _Place, value: Callable[[Architecture], Values], *, grows: bool = False) -> Array:
        """A quantity of the members at these places, which beyond them grows with the scale or stays."""
        below, above, share, scale = where
        values = np.array([float(value(member)) for member in self.members])
        if (values == values[0]).all():  # of one member, or equal in all: most quantities, and searches ask often
            return values[0] * scale if grows else np.full(np.shape(scale), values[0])
        if (values > 0).all():
            found = np.exp((1.0 - share) * np.log(values)[below] + share * np.log(values)[above])
        else:
            found = (1.0 - share) * values[below] + share * values[above]
        return found * scale if grows else found

    def _group(self, index: int, where: _Place, n_experts: int, d_model: Array) -> Layers:
        def of(value: Callable[[Layers], Values], *, grows: bool = False) -> Array:
            return self._between(where, lambda member: value(member.groups[index]), grows=grows)

        group = self.members[-1].groups[index]
        return Layers(
            of(lambda layers: layers.count, grows=True),
            _attention(group.attention, of),
            self._mlp(group.mlp, of, n_experts, d_model),
        )

    def _mlp(self, mlp: Any, of: Any, n_experts: int, d_model: Array) -> Mlp | Experts:
        """The MLP of one group: dense, or E experts of which k are as wide as those of the members."""
        gated, is_routed = mlp.gated, isinstance(mlp, Experts)
        active = of(lambda layers: getattr(layers.mlp, "top_k", 1) * layers.mlp.width, grows=True)
        shared = of(lambda layers: getattr(layers.mlp, "shared_width", 0.0), grows=True)
        if not (is_routed or self.members[-1].n_experts == 1):
            return Mlp(active + shared, gated)
        k = self.k if n_experts == 1 else min(self.k, n_experts)
        if self.granularity is not None:
            if 1 < n_experts < self.k:
                raise InputError(f"`n_experts` = {n_experts} is below `top_k` = {self.k} of experts of one width")
            width = 2.0 * d_model / self.granularity
        else:
            width = active / k if self.n_shared is None else (active + shared) / (k + self.n_shared)
        shared = shared if self.n_shared is None else self.n_shared * width
        return Mlp(k * width + shared, gated) if n_experts == 1 else Experts(n_experts, k, width, shared, gated)


def _in_floats(value: Any) -> Any:
    """A description with every size as a float, so that equal families are written alike."""
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _in_floats(getattr(value, f.name)) for f in fields(value) if f.name not in _WHOLE}
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_in_floats(item) for item in value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _attention(attention: Attention, of: Any) -> Attention:
    """The attention of one group at some places; heads grow with the scale, all else stays."""
    if isinstance(attention, LatentAttention):
        heads = of(lambda layers: layers.attention.n_heads, grows=True)
        ranks = {
            name: of(lambda layers, name=name: getattr(layers.attention, name))
            for name in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        }
        return LatentAttention(heads, **ranks)
    if isinstance(attention, HeadAttention):
        heads = of(lambda layers: layers.attention.n_heads, grows=True)
        if attention.n_kv_heads == attention.n_heads:
            groups = heads
        else:
            groups = np.minimum(of(lambda layers: layers.attention.n_kv_heads), heads)
        return replace(
            attention, n_heads=heads, n_kv_heads=groups, head_dim=of(lambda layers: layers.attention.head_dim)
        )
    # A recurrence has matrices of d by d, and a state of d by the width of a head.
    parameters = of(lambda layers: layers.attention.layer_parameters, grows=True)
    scale = of(lambda layers: 1.0, grows=True)
    return replace(
        attention,
        layer_parameters=parameters * scale,
        layer_state=of(lambda layers: layers.attention.layer_state, grows=True),
    )


_LINEAGES = {
    "mixtral": ("mixtral-8x7b", "mixtral-8x22b"),
    "deepseek": ("deepseek-v3",),
    "qwen3": ("qwen3-30b-a3b", "qwen3-235b-a22b"),
    "gpt-oss": ("gpt-oss-20b", "gpt-oss-120b"),
    "llama": ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"),
    "olmoe": ("olmoe-1b-7b",),
}
"""Members of each lineage. DeepSeek-V2-Lite is left out: its queries are not latent, so nothing lies between."""
FAMILIES = {name: ArchitectureFamily(name, tuple(map(public_model, members))) for name, members in _LINEAGES.items()}
"""Families by name."""


def architecture_family(name: str, top_k: int | None = None) -> ArchitectureFamily:
    """The family of this name. Raises InputError listing the names."""
    if name not in FAMILIES:
        raise InputError(f"`family`: found {name!r}; allowed: {', '.join(FAMILIES)}")
    return replace(FAMILIES[name], top_k=top_k)


def family_like(model: Architecture, top_k: int | None = None) -> ArchitectureFamily:
    """The family of one model's proportions."""
    return ArchitectureFamily(model.name, (model,), top_k)


def read_model(name: str | Path) -> Architecture:
    """A public model by name, or the model of a `config.json` or of a folder with one. Raises InputError."""
    if str(name).lower() not in PUBLIC_MODELS and Path(name).exists():
        return read_hub_config(name)
    return public_model(str(name))
