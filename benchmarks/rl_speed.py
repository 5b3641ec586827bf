"""Frames a second of value-rl: `python -m benchmarks.rl_speed [--json] [acting] [learning]`.

acting: 64 environments and the policy of the smallest network in one compiled loop over all cores of this process, each
of which has as many of the environments: a step is too small to be shared among cores.
learning: the same with PQN's learning, for the smallest network and for the default one with four soft experts.
Each is the median over rounds of about a second with its quartiles; the cores that other processes used are beside it,
because on a busy machine wall time says little. `frames_per_cpu_s` is per second of CPU time of this process.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from benchmarks.command import asked
from scaling.tasks.rl.pqn import Learner
from scaling.tasks.rl.programs import ROOM, learner_of, programs_of, schedule_of
from scaling.tasks.value_rl import ValueRL
from scaling.training import malloc
from scaling.training.inference_bench import others_busy

PARTS = {"acting": "environments and policy alone", "learning": "acting and learning"}
LEAST = 200_000  # frames a second of acting, on two idle cores
GAMES = ("breakout", "asterix")
SMALLEST = {"arm": "dense", "d_conv": 8, "d_expert": 32}
ROUNDS, ROUND_S = 7, 1.0


@dataclass(frozen=True)
class Speed:
    """Frames a second: median and quartiles over rounds, and per CPU second; cores that others used."""

    part: str
    game: str
    network: str
    frames_per_s: float
    quartiles: tuple[float, float]
    frames_per_cpu_s: float
    others_busy: float | None


def timed(part: str, settings: ValueRL, learner: Learner, run: Callable[[Learner, int], Learner]) -> Speed:
    """The speed of `run(learner, rounds)`, which is called once before it is timed."""
    learner = jax.block_until_ready(run(learner, 1))
    count, walls, cpus = 1, [], []
    while len(walls) < ROUNDS:
        wall, cpu = time.perf_counter(), time.process_time()
        learner = jax.block_until_ready(run(learner, count))
        took = time.perf_counter() - wall
        if took < ROUND_S / 2 and count < ROOM:
            count = min(ROOM, max(2 * count, int(count * ROUND_S / took)))
            continue
        frames = count * settings.round_frames
        walls.append(frames / took)
        cpus.append(frames / max(time.process_time() - cpu, 1e-9))
    low, middle, high = np.quantile(walls, (0.25, 0.5, 0.75))
    network = f"{settings.arm} d_conv={settings.d_conv} d_expert={settings.d_expert} E={settings.n_experts}"
    return Speed(part, settings.game, network, middle, (low, high), float(np.median(cpus)), others_busy())


def acting(settings: ValueRL) -> Speed:
    """Environments and policy with 5 % of random actions, on as many devices as divide the environments."""
    count = math.gcd(settings.n_envs, len(jax.devices()))
    of_one = learner_of(settings.model_copy(update={"n_envs": settings.n_envs // count}))
    devices = jax.make_mesh((count,), ("core",), (AxisType.Auto,), devices=jax.devices()[:count])
    everywhere = functools.partial(jax.shard_map, mesh=devices, out_specs=P("core"), check_vma=False)

    @functools.partial(everywhere, in_specs=P("core"))
    def start(key_1: jax.Array) -> Learner:
        return jax.tree.map(lambda a: a[None], of_one.start(key_1[0]))

    @functools.partial(everywhere, in_specs=(P("core"), P()))
    def act(learner_1: Learner, rounds: jax.Array) -> Learner:
        def one(number: Any, learner: Learner) -> Learner:
            return of_one.act(learner, jax.random.fold_in(learner.key, number), jnp.float32(0.05))[0]

        learner = jax.lax.fori_loop(0, rounds, one, jax.tree.map(lambda a: a[0], learner_1))
        return jax.tree.map(lambda a: a[None], learner)

    learner, compiled = jax.jit(start)(jax.random.split(jax.random.key(0), count)), jax.jit(act)
    return timed("acting", settings, learner, lambda learner, rounds: compiled(learner, jnp.int32(rounds)))


def learning(settings: ValueRL) -> Speed:
    """Acting and learning, as cells do."""
    programs, schedule = programs_of(settings), schedule_of(settings)
    learner = programs.start(jax.random.key(0))
    return timed(
        "learning", settings, learner, lambda learner, count: programs.advance(learner, schedule, jnp.int32(count))[0]
    )


def measured(parts: Sequence[str]) -> list[Speed]:
    """The speeds of these parts in each game."""
    malloc.keep()
    found = []
    for game in GAMES:
        smallest, default = ValueRL(game=game, **SMALLEST), ValueRL(game=game)
        if "acting" in parts:
            found.append(acting(smallest))
        if "learning" in parts:
            found += [learning(smallest), learning(default)]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parts, as_json = asked("rl_speed", "Frames a second of value-rl.", PARTS, arguments)
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    speeds = measured(parts)
    if as_json:
        print(json.dumps([asdict(speed) for speed in speeds]))
        return
    for speed in speeds:
        low, high = speed.quartiles
        busy = "unknown" if speed.others_busy is None else f"{speed.others_busy:.1f}"
        print(
            f"{speed.part:9} {speed.game:9} {speed.network:38} {speed.frames_per_s:9,.0f} frames/s "
            f"({low:,.0f} to {high:,.0f}), {speed.frames_per_cpu_s:,.0f} a CPU second; others use {busy} cores"
        )
    print(f"goal: {LEAST:,} frames/s of acting on two idle cores")


if __name__ == "__main__":
    main(sys.argv[1:])
