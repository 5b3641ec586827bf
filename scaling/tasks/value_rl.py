"""Value-based reinforcement learning on MinAtar, with experts in the penultimate layer of the Q-network.

The learner is PQN (Gallici et al., "Simplifying deep temporal difference learning", arXiv 2407.04811): Q-learning with
lambda-returns over parallel environments, layer norm, no replay and no target network. Arms, and what each rules out,
are of arXiv 2402.08609 and 2410.01930 (`scaling.tasks.rl.arms`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from scaling.config.fields import Count, Real, Whole
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.rl.arms import (
    WITHOUT_EXPERTS,
    WITHOUT_TOKENS,
    ArmName,
    Layer,
    Tokenisation,
    encoder_flops,
    forward_flops,
    layer_of,
)
from scaling.tasks.rl.games import GAMES, Game, GameName
from scaling.tasks.rl.rewards.library import REWARDS, RewardName, resolved_program, unused_settings
from scaling.tasks.task import Budget, Metric, Task

Share = Annotated[Real, Field(ge=0, le=1)]
Rate = Annotated[Real, Field(gt=0)]


class ValueRL(Settings):
    """What a cell of value-rl is: a game, an arm, and how it learns."""

    game: Annotated[GameName, Field(description="game of MinAtar")] = "breakout"
    arm: Annotated[ArmName, Field(description="penultimate layer of the Q-network")] = "soft"
    n_experts: Annotated[
        Count, Field(description="E, experts of the layer, or of the layer that a control is the control of")
    ] = 4
    d_expert: Annotated[Count, Field(description="hidden units of one expert, and of the dense layer")] = 128
    d_conv: Annotated[Count, Field(description="features of the convolution")] = 16
    tokenisation: Annotated[
        Tokenisation, Field(description="what a token is: a place, a feature map, or the whole observation")
    ] = "per-conv"
    capacity_factor: Annotated[Rate, Field(description="room of a top-1 expert over the mean load")] = 1.0
    lr: Annotated[Rate, Field(description="learning rate at the start")] = 5e-4
    decay_frames: Annotated[
        Whole, Field(description="frames over which the learning rate falls linearly to 0; 0: it stays")
    ] = 0
    exploration_frames: Annotated[
        Count, Field(description="frames over which the share of random actions falls linearly from 1 to epsilon")
    ] = 100_000
    epsilon: Annotated[Share, Field(description="share of random actions after that")] = 0.05
    n_envs: Annotated[Count, Field(description="environments side by side")] = 64
    n_steps: Annotated[Count, Field(description="steps of each environment between two rounds of learning")] = 32
    n_minibatches: Annotated[Count, Field(description="gradient steps of an epoch")] = 16
    n_epochs: Annotated[Count, Field(description="times that a round learns from its transitions")] = 2
    discount: Annotated[Share, Field(description="gamma")] = 0.99
    trace: Annotated[Share, Field(description="lambda of the returns")] = 0.65
    reward: Annotated[RewardName, Field(description="what is learnt from beside the environment's own reward")] = "own"
    reward_program: Annotated[
        str, Field(description="of `program`, its text, its file or the name of one that ships; of `potential`, Phi")
    ] = ""
    reward_weight: Annotated[
        Real, Field(ge=0, description="times the help of the reward that is added to the environment's own")
    ] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _without_experts(cls, given: Any) -> Any:
        """An arm without experts has `n_experts` 1 whatever a grid says, so that crossed axes give it once."""
        if isinstance(given, dict) and given.get("arm") in WITHOUT_EXPERTS:
            return {**given, "n_experts": 1}
        return given

    @model_validator(mode="before")
    @classmethod
    def _program_as_text(cls, given: Any) -> Any:
        """`reward_program` is the text itself, so that a cell is known by what it learns from and not by a file."""
        if isinstance(given, dict) and (reward := given.get("reward", "own")) in REWARDS:
            game, text = given.get("game", "breakout"), given.get("reward_program", "")
            if isinstance(game, str) and game in GAMES and isinstance(text, str):
                return {**given, "reward_program": resolved_program(reward, game, text)}
        return given

    @model_validator(mode="after")
    def _whole_minibatches(self) -> ValueRL:
        if self.n_envs * self.n_steps % self.n_minibatches:
            raise ValueError(
                f"`n_minibatches` {self.n_minibatches} must divide `n_envs` {self.n_envs} x `n_steps` {self.n_steps}"
            )
        return self

    @property
    def round_frames(self) -> int:
        """Frames of one round: acting, then learning."""
        return self.n_envs * self.n_steps

    @property
    def facts(self) -> Game:
        """What is known of the game."""
        return GAMES[self.game]

    @property
    def layer(self) -> Layer:
        """The layer of the arm."""
        return layer_of(
            self.arm, self.n_experts, self.d_expert, self.d_conv, self.tokenisation, self.capacity_factor,
            self.facts.actions,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Without the settings that the arm and the reward do not use."""
        unused = unused_settings(self.reward)
        if self.arm in WITHOUT_EXPERTS:
            unused.add("n_experts")
        if self.arm in WITHOUT_TOKENS and self.arm != "dense-matched":
            unused.add("tokenisation")
        if self.arm != "top1":
            unused.add("capacity_factor")
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in unused}


def rounds(cell: TaskCell) -> int:
    """The rounds of a cell: as many whole ones as hold its frames."""
    settings = cell.settings
    assert isinstance(settings, ValueRL)
    return -(-cell.budget // settings.round_frames)


def train_flops(cell: TaskCell) -> float:
    """FLOPs of the matrix products of acting and learning: one forward pass of each frame to act, and in each epoch a
    forward pass, the gradients of weights and, but for the convolution's input, of inputs."""
    settings = cell.settings
    assert isinstance(settings, ValueRL)
    forward = forward_flops(settings.layer, settings.facts, settings.d_conv)
    learnt = 3 * forward - encoder_flops(settings.facts.channels, settings.d_conv)
    return float(rounds(cell) * settings.round_frames * (forward + settings.n_epochs * learnt))


TASK = Task(
    name="value-rl",
    title="value-based reinforcement learning",
    source="arXiv 2402.08609, 2410.01930; learner 2407.04811",
    settings=ValueRL,
    metrics=(
        Metric(
            "episode_return",
            "reward",
            "after training: mean return of the first episode of each environment, with 5 % of random actions",
            "higher",
        ),
        Metric(
            "train_return",
            "reward",
            "mean return of the episodes that ended in the last tenth of training; in curves, since the previous row",
            "higher",
        ),
        Metric("area", "reward", "mean over training of the latest return known: area under the learning curve over "
               "frames", "higher"),
        Metric("random_return", "reward", "episode_return of random actions in this game", "higher"),
        Metric("dormant_frac", "", "share of hidden units with a score of at most .025 (2302.12902), mean of experts"),
        Metric("dormant_frac_worst", "", "the same of the expert that has most"),
        Metric("silent_frac", "", "share of hidden units that are never active, mean over experts"),
        Metric("effective_rank", "", "directions of what the head reads that hold 99 % of its singular values "
               "(2010.14498)", "higher"),
        Metric("dropped_frac", "", "share of tokens that reached no expert; null where every token does"),
        Metric("idle_experts", "", "experts that no token reached"),
        Metric("n_parameters", "parameters", "all parameters of the network, its router included"),
        Metric("forward_flops", "FLOP", "of the matrix products of one observation's forward pass"),
        Metric("decision_s", "s", "time of one observation's forward pass, 1,000 in one compiled loop, median of five "
               "loops; beside whatever else the machine does"),
        Metric("td_loss", "reward^2", "half the squared error of the lambda-returns; in curves, mean since the "
               "previous row"),
        Metric("learnt_reward", "reward/frame", "mean reward that was learnt from, the help of `reward` included, in "
               "the last tenth of training; in curves, since the previous row", "higher"),
        Metric("frames_per_s", "frames/s", "of acting and learning, without compilation", "higher"),
    ),
    budget=Budget("frames", "frames", "environment steps that the learner has seen, in whole rounds"),
    train="scaling.tasks.rl.training:train_cells",
    flops=train_flops,
    flops_are="counted",
    tables=("curves",),
    code=(
        "scaling.tasks.value_rl",
        *(f"scaling.tasks.rl.{name}" for name in ("arms", "environment", "games", "inside", "learning_curve", "network",
                                                  "pqn", "programs", "returns", "rewards")),
        "scaling.model.moe.dispatch",
        "scaling.model.moe.kernels",
    ),
)  # fmt: skip
