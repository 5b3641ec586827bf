"""Published fits by name: constants as printed, with their sources."""

from __future__ import annotations

from dataclasses import replace
from math import exp

from analysis.fitting.fit import Fit
from analysis.laws.model_family import FINE_GRAINED_2024, JOINT_MOE_2025, WITHOUT_EMBEDDINGS
from scaling.errors import InputError

_CONSTANTS: dict[str, dict[str, float]] = {
    "joint-moe": {
        "a": 35.91, "alpha": -0.1889, "delta": -0.2285, "gamma": 0.0098, "b": 35.98, "beta": -0.1775, "omega": 0.5529,
        "zeta": -0.0259, "c": 1.3637, "E_start": 2.0732, "E_max": 290.4521,
    },
    "sparsity": {
        "a": 16612.50, "alpha": 0.5962, "b": 5455.67, "beta": 0.3954, "c": 0.4598, "lambda": -0.1666, "d": 17.26,
        "delta": 0.1603, "gamma": 0.1595, "e": 0.94,
    },
    "tencent": {
        "e": 0.1577, "f": 7.2446, "m": 5.1395, "n": -3.2363, "k": 0.0013, "h": 0.0450, "a": 38.051, "alpha": 0.2383,
        "b": 27129.05, "beta": 0.4694, "c": 31.096, "eps": 1.8182,
    },
}  # fmt: skip

_HOFFMANN_DOMAIN = {"n_active": (7e7, 1.6e10), "tokens": (5e9, 5e11)}

_FITS: dict[str, Fit] = {
    "chinchilla-rounded": Fit(
        law="hoffmann",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
        source="Hoffmann et al. 2022, arXiv 2203.15556, eq. 10, rounded as printed",
        warnings=(
            "exponents rounded to two digits: 93 tokens per parameter at 5.76e23 FLOPs, against 59 with unrounded ones",
        ),
    ),
    "chinchilla-tex": Fit(
        law="hoffmann",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": exp(0.5267228), "A": exp(6.0073404), "alpha": 0.33917084, "B": exp(6.0179186), "beta": 0.2849083},
        source="Hoffmann et al. 2022, unrounded values of the paper's TeX source as quoted by Besiroglu et al. 2024, "
        "arXiv 2404.10102",
    ),
    "chinchilla-epoch": Fit(
        law="hoffmann",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": 1.81686, "A": 482.00572, "alpha": 0.34781303, "B": 2085.43420, "beta": 0.36585412},
        source="Besiroglu et al. 2024 (Epoch AI), arXiv 2404.10102, point estimate on 240 digitised runs",
        notes=("in effect a least-absolute-deviations fit: its free Huber scale collapsed",),
    ),
    "joint-moe-2025": Fit(
        law="joint-moe",
        experts=(1, 2, 4, 8, 16, 32),
        domain={"n_active": (7.9e7, 2.7e9), "tokens": (5e8, 8e10), "n_experts": (1.0, 32.0)},
        params=_CONSTANTS["joint-moe"],
        family=JOINT_MOE_2025,
        source="Ludziejewski et al. 2025, arXiv 2502.05172, table of the joint MoE law",
    ),
    "kaplan-2020": Fit(
        law="kaplan",
        domain={"n_active_nonembed": (768.0, 1.5e9), "tokens": (2.2e7, 2.3e10)},
        experts=(1,),
        family=WITHOUT_EMBEDDINGS,
        params={"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13},
        source="Kaplan et al. 2020, arXiv 2001.08361, joint fit of L(N, D)",
        warnings=(
            "its optimum is N ~ C^0.58 by these constants, C^0.73 in the paper; tuned runs give C^0.50 (Porian et al., "
            "arXiv 2406.19146)",
        ),
    ),
    **{
        f"clark-2022-{name}": Fit(
            law="clark",
            domain={"n_dense_nonembed": (1.6e7, 1.3e9), "n_experts": (1.0, 512.0)},
            experts=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            params=dict(zip(("a", "b", "c", "d", "E_start", "E_max"), constants, strict=True)),
            source=f"Clark et al. 2022, arXiv 2202.01169, {router}, rounded as printed",
            warnings=("every run was trained on 130B tokens: the law does not hold for other D",),
        )
        for name, router, constants in (
            ("s-base", "S-BASE", (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478)),
            ("rl-r", "RL-R", (-0.083, -0.126, 0.012, 1.111, 1.880, 469.982)),
            ("hash", "Hash", (-0.087, -0.136, 0.012, 1.157, 4.175, 477.741)),
        )
    },
    **{
        f"fine-grained-2024{name}": Fit(
            law="fine-grained",
            domain={"n_total_nonembed": (1.29e8, 3.7e9), "tokens": tokens, "granularity": (1.0, 16.0)},
            experts=(expansion,),
            family=FINE_GRAINED_2024,
            params=dict(zip(("a", "alpha", "b", "beta", "g", "gamma", "c"), constants, strict=True)),
            source=f"Krajewski et al. 2024, arXiv 2402.07871, expansion rate E = {expansion}",
            notes=(
                "fitted to smoothed training loss; N excludes embeddings and routers; the law always favours larger G",
            ),
        )
        for name, expansion, tokens, constants in (
            ("", 64, (1.6e10, 1.3e11), (18.1, 0.115, 30.8, 0.147, 2.1, 0.58, 0.47)),
            ("-e16", 16, (8e9, 6.6e10), (19.64, 0.124, 57.07, 0.169, 1.18, 0.986, 0.472)),
        )
    },
    "fine-grained-2024-dense": Fit(
        law="hoffmann",
        experts=(1,),
        family=WITHOUT_EMBEDDINGS,
        domain={"tokens": (1.6e10, 1.3e11)},
        params={"E": 0.47, "A": 16.3, "alpha": 0.126, "B": 26.7, "beta": 0.127},
        source="Krajewski et al. 2024, arXiv 2402.07871, dense models",
        notes=("fitted to smoothed training loss; N excludes embeddings; its floor is that of the MoE fit",),
    ),
    "sparsity-2025": Fit(
        law="sparsity",
        params=_CONSTANTS["sparsity"],
        source="Abnar et al. 2025, arXiv 2501.12370",
        warnings=("off its grid of S it explains 68 % of the variance; its ranges of N and D are unknown",),
    ),
    "leverage-2025": Fit(
        law="leverage",
        domain={"activation_ratio": (0.008, 1.0), "granularity": (2.0, 16.0), "train_flops": (1e18, 3e20)},
        params={"a": 1.23, "d": -7.61e-2, "gamma": 1.67e-2, "beta": -1.17e-1, "A_start": 1.63e-2, "A_max": 5.28e16},
        source="Ling team 2025, arXiv 2507.17702",
    ),
    "overtraining-2024": Fit(
        law="overtraining",
        domain={"n_active": (1.1e7, 4.11e8), "tokens": (2.2e8, 8.2e9)},
        experts=(1,),
        params={"E": 1.8366, "a": 212.236, "b": 366.687, "eta": 0.1364},
        source="recomputed by the protocol of Gadre et al. 2024, arXiv 2403.08540, from its 5 RedPajama runs (C4 loss)",
        notes=("predicts a loss 0.7 % too high for the authors' 1.4B model on 921B tokens",),
    ),
    "tencent-2025": Fit(
        law="tencent",
        params=_CONSTANTS["tencent"],
        source="Zhao et al. 2025, arXiv 2509.23678, as quoted by others",
    ),
    **{
        f"sardana-2024-{name}": Fit(
            law="hoffmann",
            domain={"n_active": (1.5e8, 6e9)},
            experts=(1,),
            params=dict(zip(("alpha", "beta", "A", "B", "E"), constants, strict=True)),
            source=f"Sardana et al. 2024, arXiv 2401.00448, runs of {ratio} tokens per parameter, as quoted by others",
            warnings=("its exponents depend heavily on the range of tokens per parameter",),
        )
        for name, ratio, constants in (
            ("100", "at most 100", (0.08, 0.13, 7.199, 25.97, 0.17)),
            ("250", "at most 250", (0.13, 0.16, 14.23, 39.54, 0.98)),
            ("500", "at most 500", (0.13, 0.16, 17.07, 35.80, 0.95)),
            ("all", "up to 10,000", (0.18, 0.24, 33.66, 138.9, 1.45)),
        )
    },
}

PUBLISHED: dict[str, Fit] = {name: replace(fit, status="published") for name, fit in _FITS.items()}


def published(name: str) -> Fit:
    """The published fit of that name, its constants alone; `published_draws.with_draws` adds how sure they are.

    Raises InputError listing the names for an unknown one.
    """
    if name not in PUBLISHED:
        raise InputError(f"no published fit is called {name!r}; there are moe (several), {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def published_name(fit: Fit) -> str:
    """`published:NAME` where this is a published fit, with draws or without; "" for any other."""
    if fit.status != "published":
        return ""
    same = (name for name, known in PUBLISHED.items() if known.law == fit.law and known.params == fit.params)
    return next((f"published:{name}" for name in same), "")
