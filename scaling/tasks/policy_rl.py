"""PPO on MinAtar: one game, several at once, or games in turn, with experts in the actor and the critic.

Places of experts and routers are those of arXiv 2406.18420, "Mixture of experts in a mixture of RL settings"; the
learner has the settings of PureJaxRL for MinAtar.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scaling.config.fields import Count, Real, Whole
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.rl.games import GAMES, GameName
from scaling.tasks.rl.policy.phases import Phase, phase_at
from scaling.tasks.rl.policy.towers import (
    ACTIONS,
    DENSE,
    Place,
    Router,
    Tower,
    channels_of,
    forward_flops,
    input_flops,
    tower_of,
)
from scaling.tasks.rl.rewards.library import REWARDS, RewardName, resolved_program, unused_settings
from scaling.tasks.task import Budget, Metric, Task

Share = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Real, Field(gt=0)]
Weight = Annotated[Real, Field(ge=0)]


class PolicyRL(Settings):
    """What a cell of policy-rl is: its games and how they come, its network, and how it learns."""

    setting: Annotated[
        Literal["single", "multi-task", "continual"],
        Field(description="one game; several at once, environments split equally; or several in turn"),
    ] = "single"
    games: Annotated[
        tuple[GameName, ...], Field(description="games of MinAtar, for `continual` in the order in which they come")
    ] = ("breakout",)
    place: Annotated[
        Place,
        Field(
            description="where experts are: in the penultimate layer (middle), the last (final), every one (all), or "
            "around whole networks (big); none, wide (E times the units) and matched (parameters of big) are dense"
        ),
    ] = "big"
    router: Annotated[
        Router, Field(description="softmax over experts (soft), its largest gates (top-k), or by the game (hard)")
    ] = "soft"
    experts_in: Annotated[
        Literal["both", "actor", "critic"], Field(description="the network that has experts; the other is as `none`")
    ] = "both"
    n_experts: Annotated[
        Count, Field(description="E, experts of a layer, or of the network that a dense control is the control of")
    ] = 3
    top_k: Annotated[Count, Field(description="experts of an observation, of the router top-k")] = 1
    d_hidden: Annotated[Count, Field(description="units of a hidden layer, and of one expert of it")] = 64
    phase_frames: Annotated[
        Count, Field(description="frames of a game before the next one comes, in whole rounds; of `continual`")
    ] = 1_000_000
    lr: Annotated[Positive, Field(description="learning rate at the start, of training or of a phase")] = 5e-3
    decay_frames: Annotated[
        Whole,
        Field(description="frames from there over which the learning rate falls linearly to 0; 0: it stays"),
    ] = 0
    n_envs: Annotated[Count, Field(description="environments side by side, of all games that are played at once")] = 64
    n_steps: Annotated[Count, Field(description="steps of each environment between two rounds of learning")] = 128
    n_minibatches: Annotated[Count, Field(description="gradient steps of an epoch")] = 8
    n_epochs: Annotated[Count, Field(description="times that a round learns from its transitions")] = 4
    discount: Annotated[Share, Field(description="gamma")] = 0.99
    trace: Annotated[Share, Field(description="lambda of the advantages")] = 0.95
    clip: Annotated[Positive, Field(description="epsilon by which ratios, and values, may move in a round")] = 0.2
    entropy_weight: Annotated[Weight, Field(description="of the policy's entropy in the objective")] = 0.01
    value_weight: Annotated[Weight, Field(description="of the value's loss")] = 0.5
    most_norm: Annotated[Positive, Field(description="norm that gradients are clipped to")] = 0.5

    reward: Annotated[RewardName, Field(description="what is learnt from beside the environment's own reward")] = "own"
    reward_program: Annotated[
        str,
        Field(
            description="of one game: of `program`, its text, its file or the name of one that ships; of `potential`, "
            "Phi; of several games each has its default"
        ),
    ] = ""
    reward_weight: Annotated[
        Weight, Field(description="times the help of the reward that is added to the environment's own")
    ] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _program_as_text(cls, given: Any) -> Any:
        """`reward_program` is the text itself, so that a cell is known by what it learns from and not by a file."""
        if isinstance(given, dict) and (reward := given.get("reward", "own")) in REWARDS:
            games, text = given.get("games", ("breakout",)), given.get("reward_program", "")
            is_one = isinstance(games, list | tuple) and len(games) == 1 and games[0] in GAMES
            if is_one and isinstance(text, str):
                return {**given, "reward_program": resolved_program(reward, games[0], text)}
        return given

    @model_validator(mode="before")
    @classmethod
    def _experts_of_the_place(cls, given: Any) -> Any:
        """`n_experts` is 1 without experts, and that of the games with the router `hard`, whatever a grid says, so that
        crossed axes give such a cell once."""
        if not isinstance(given, dict):
            return given
        if given.get("place") == "none":
            return {**given, "n_experts": 1}
        if given.get("router") == "hard" and given.get("place") not in DENSE:
            games = given.get("games")
            return {**given, "n_experts": len(games)} if isinstance(games, list | tuple) and games else given
        return given

    @model_validator(mode="after")
    def _possible(self) -> PolicyRL:
        n_games, frames = len(self.games), self.n_envs * self.n_steps
        if len(set(self.games)) < n_games:
            raise ValueError("`games` names one twice; in `continual` games come again by themselves")
        if (self.setting == "single") != (n_games == 1):
            wanted = "one game" if self.setting == "single" else "two games or more"
            raise ValueError(f"`setting: {self.setting}` needs {wanted} in `games`, found {n_games}")
        if self.setting == "multi-task" and self.n_envs % n_games:
            raise ValueError(f"`n_envs` {self.n_envs} must be a multiple of the {n_games} games that share them")
        if frames % self.n_minibatches:
            raise ValueError(
                f"`n_minibatches` {self.n_minibatches} must divide `n_envs` {self.n_envs} x `n_steps` {self.n_steps}"
            )
        if self.has_experts and self.router == "hard" and n_games == 1:
            raise ValueError("`router: hard` gives each game its expert, and `single` has one game: choose another")
        if self.has_experts and self.router == "top-k" and self.top_k > self.n_experts:
            raise ValueError(f"`top_k` {self.top_k} must be at most `n_experts` {self.n_experts}")
        return self

    @model_validator(mode="after")
    def _rewarded(self) -> PolicyRL:
        """Each game has a reward of this name; the text that settings hold is of one game."""
        if len(self.games) > 1 and self.reward_program:
            raise ValueError("`reward_program` is of one game; several games have the default of each: leave it out")
        assert len(self.reward_texts) == len(self.games)  # raises ValueError for a game without such a reward
        return self

    @property
    def reward_texts(self) -> tuple[str, ...]:
        """What the reward of each game is made of. Raises ValueError for a game for which there is none."""
        return tuple(resolved_program(self.reward, game, self.reward_program) for game in self.games)

    @property
    def has_experts(self) -> bool:
        """Whether any layer has experts."""
        return self.place not in DENSE

    @property
    def round_frames(self) -> int:
        """Frames of one round: acting, then learning."""
        return self.n_envs * self.n_steps

    @property
    def phase_rounds(self) -> int | None:
        """Rounds of a phase; None where there is one phase."""
        return -(-self.phase_frames // self.round_frames) if self.setting == "continual" else None

    def phase_of(self, number: int) -> Phase:
        """The phase of round `number`, counted from 0."""
        return phase_at(self.games, self.phase_rounds, number)

    @property
    def towers(self) -> tuple[Tower, Tower]:
        """Those of actor and critic."""
        return _tower(self, "actor", ACTIONS), _tower(self, "critic", 1)

    def identity(self) -> dict[str, Any]:
        """Without the settings that the cell does not use."""
        unused = set()
        if self.place == "none":
            unused |= {"n_experts", "experts_in"}
        if not self.has_experts:
            unused.add("router")
        if not self.has_experts or self.router != "top-k":
            unused.add("top_k")
        if self.setting != "continual":
            unused.add("phase_frames")
        unused |= unused_settings(self.reward)
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in unused}


@functools.lru_cache(maxsize=1024)
def _tower(settings: PolicyRL, name: str, outputs: int) -> Tower:
    place = settings.place if settings.experts_in in ("both", name) else "none"
    return tower_of(place, settings.router, settings.n_experts, settings.top_k, settings.d_hidden, outputs)


def rounds(cell: TaskCell) -> int:
    """The rounds of a cell: as many whole ones as hold its frames."""
    settings = cell.settings
    assert isinstance(settings, PolicyRL)
    return -(-cell.budget // settings.round_frames)


def train_flops(cell: TaskCell) -> float:
    """FLOPs of the matrix products of acting and learning: one forward pass of each frame to act, and in each epoch a
    forward pass, the gradients of weights and, but for the observation, of inputs."""
    settings = cell.settings
    assert isinstance(settings, PolicyRL)
    total, done, last = 0, 0, rounds(cell)
    while done < last:
        phase = settings.phase_of(done)
        end = last if phase.end is None else min(last, phase.end)
        channels = channels_of(phase.games)
        forward = sum(forward_flops(tower, channels) for tower in settings.towers)
        learnt = 3 * forward - sum(input_flops(tower, channels) for tower in settings.towers)
        total += (end - done) * settings.round_frames * (forward + settings.n_epochs * learnt)
        done = end
    return float(total)


def column_of(prefix: str, game: str) -> str:
    """The metric of one game: `return_space_invaders`."""
    return f"{prefix}_{game.replace('-', '_')}"


def _by_game(prefix: str, meaning: str) -> tuple[Metric, ...]:
    return tuple(Metric(column_of(prefix, game), "reward", meaning.format(game), "higher") for game in GAMES)


TASK = Task(
    name="policy-rl",
    title="policy gradients with experts, one game, several, or in turn",
    source="arXiv 2406.18420; learner 1707.06347",
    settings=PolicyRL,
    metrics=(
        Metric("episode_return", "reward", "after training: mean return of first episodes; of several games the "
               "geometric mean of 1 + return, less 1", "higher"),
        *_by_game("return", "mean return of first episodes of {}; in curves, at the end of a phase"),
        *_by_game("train_return", "mean return of the episodes of {} that ended in the last tenth of its training; in "
                  "curves, since the previous row"),
        *_by_game("random_return", "mean return of random actions in {}"),
        Metric("train_return", "reward", "episode_return of the episodes that ended in the last tenth of training; in "
               "curves, of those since the previous row", "higher"),
        Metric("random_return", "reward", "episode_return of random actions", "higher"),
        Metric("learnt_return", "reward", "geometric mean over phases of 1 + return of the phase's game at its end, "
               "less 1; of continual training", "higher"),
        Metric("forgetting", "", "mean over games of what ln(1 + return) lost since the game was last trained on; of "
               "continual training"),
        Metric("forward_transfer", "", "mean over games but the first of ln(1 + return) before its first phase, less "
               "that of random actions; of continual training", "higher"),
        Metric("plasticity", "", "error that the first weights leave on new targets, over that of the weights now: 1 "
               "as a new network, below 1 it learns less", "higher"),
        Metric("dormant_frac", "", "share of hidden units with a score of at most .025 (2302.12902), mean over layers "
               "and experts"),
        Metric("dormant_actor", "", "the same of the actor"),
        Metric("dormant_critic", "", "the same of the critic"),
        Metric("dormant_frac_worst", "", "the same of the layer and expert that has most"),
        Metric("silent_frac", "", "share of hidden units that are never active, mean over layers and experts"),
        Metric("idle_experts", "", "experts of a layer that no observation reached, summed over layers"),
        Metric("effective_rank", "", "directions of what the actor's last layer reads that hold 99 % of its singular "
               "values (2010.14498); of big, mean over experts", "higher"),
        Metric("router_entropy", "", "mean entropy of an observation's gates over ln E; mean over routers"),
        Metric("load_entropy", "", "entropy of the mean gates over ln E, 1 if experts share alike; mean over routers",
               "higher"),
        Metric("game_information", "", "information of the gates on the game, over the entropy of games; mean over "
               "routers", "higher"),
        Metric("n_parameters", "parameters", "all parameters of actor and critic, routers included"),
        Metric("forward_flops", "FLOP", "of the matrix products of one observation's forward pass, as computed: every "
               "expert reads every observation; of the game with most channels"),
        Metric("needed_flops", "FLOP", "the same of the experts that an observation is routed to"),
        Metric("policy_loss", "", "clipped surrogate, mean of the last tenth of training; in curves, since the "
               "previous row"),
        Metric("value_loss", "reward^2", "half the clipped squared error of the value; likewise"),
        Metric("policy_entropy", "nats", "entropy of the policy; likewise"),
        Metric("policy_kl", "nats", "divergence from the policy that acted; likewise"),
        Metric("clipped_frac", "", "share of ratios beyond the clip; likewise"),
        Metric("learnt_reward", "reward/frame", "mean reward that was learnt from, the help of `reward` included; "
               "likewise", "higher"),
        Metric("frames_per_s", "frames/s", "of acting and learning, without compilation", "higher"),
    ),
    budget=Budget("frames", "frames", "environment steps of all games that the learner has seen, in whole rounds"),
    train="scaling.tasks.rl.policy.training:train_cells",
    flops=train_flops,
    flops_are="counted",
    tables=("curves",),
    code=(
        "scaling.tasks.policy_rl", "scaling.tasks.rl.policy", "scaling.tasks.rl.environment", "scaling.tasks.rl.games",
        "scaling.tasks.rl.inside", "scaling.tasks.rl.returns", "scaling.tasks.rl.rewards", "scaling.model.matmul",
    ),
)  # fmt: skip
