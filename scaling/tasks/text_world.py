"""A language model that acts in a world of text, and learns from its own errors (E2CL, arXiv 2409.03256).

The world is a small one of rooms, doors and things (`scaling.tasks.world`); the model is the project's transformer with
its routers. It imitates expert trajectories, then explores the same instances with or without a teacher, and learns to
predict the feedback to its actions and to correct those that were not feasible. The control takes the same number of
updates on as many texts of the same length, all of them the expert's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from scaling.config import counts
from scaling.config.fields import Count, Real
from scaling.config.model import ModelConfig
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.task import Budget, Metric, Task
from scaling.tasks.world.layout import ATTEMPT_TOKENS, LAYOUTS, Layout, LayoutName
from scaling.tasks.world.vocabulary import WORDS

Exploration = Literal["none", "teacher-guided", "teacher-free", "both"]
_OF_EXPLORATION = ("rounds", "temperature", "explored_share", "pretrain_share")
_OF_ROUTING = ("router",)


class TextWorld(Settings):
    """What a cell of text-world is: a world, a way of exploring, a model, and how it learns."""

    layout: Annotated[LayoutName, Field(description="rooms: flat, 2 x 2 with two doors; house, 2 x 3 with three")] = (
        "house"
    )
    exploration: Annotated[
        Exploration, Field(description="beside a teacher, without one, both, or not at all (the control)")
    ] = "both"
    n_trajectories: Annotated[
        Count, Field(le=100_000, description="expert trajectories, one an instance; exploration has the same instances")
    ] = 256
    rounds: Annotated[Count, Field(le=100, description="times that the model explores every instance")] = 2
    pretrain_share: Annotated[
        Real,
        Field(gt=0, lt=1, description="share of the updates before the first exploration, imitation alone"),
    ] = 0.5
    explored_share: Annotated[
        Real,
        Field(gt=0, lt=1, description="share of an update's texts that exploration made, once there are some"),
    ] = 0.5
    temperature: Annotated[Real, Field(ge=0, description="of the words that are drawn in exploration")] = 1.0
    attempts: Annotated[
        Count, Field(ge=10, le=64, description="actions of a walk at most, those that are not feasible included")
    ] = 16
    n_experts: Annotated[Count, Field(description="E, experts of an MoE layer")] = 4
    top_k: Annotated[Count, Field(description="k, experts per token")] = 1
    d_model: Annotated[Count, Field(le=4096, description="width of the residual stream")] = 64
    n_layers: Annotated[Count, Field(le=64, description="Transformer blocks")] = 2
    d_head: Annotated[Count, Field(le=256, description="width of an attention head")] = 16
    d_expert: Annotated[Count, Field(le=65_536, description="hidden units of one expert")] = 128
    router: Annotated[str, Field(description="how tokens choose experts, by its name among the project's routers")] = (
        "switch"
    )
    batch_texts: Annotated[Count, Field(le=4096, description="texts of an update")] = 32
    lr: Annotated[Real, Field(gt=0, description="peak learning rate")] = 3e-3
    n_heldout: Annotated[Count, Field(le=4096, description="instances of the evaluation, the same for all cells")] = 256

    @model_validator(mode="after")
    def _trainable(self) -> TextWorld:
        try:
            model = self.model
        except ValidationError as error:  # told as one of these settings
            found = ((*map(str, one["loc"]), one["msg"].removeprefix("Value error, ")) for one in error.errors())
            raise ValueError("; ".join(": ".join(parts) for parts in found)) from None
        if model.phased:
            raise ValueError(
                f"router={self.router} begins with a dense model, which text-world does not train; take another"
            )
        return self

    @property
    def facts(self) -> Layout:
        """What is known of the layout."""
        return LAYOUTS[self.layout]

    @property
    def text_tokens(self) -> int:
        """Words of a text: the description, and four of each attempt."""
        return self.facts.prompt_tokens + ATTEMPT_TOKENS * self.attempts

    @property
    def model(self) -> ModelConfig:
        """The model."""
        return ModelConfig(
            d_model=self.d_model, n_layers=self.n_layers, d_head=self.d_head, d_expert=self.d_expert,
            n_experts=self.n_experts, top_k=self.top_k, router=self.router,
        )  # fmt: skip

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways of exploring that `exploration` stands for."""
        if self.exploration == "both":
            return ("teacher-guided", "teacher-free")
        return () if self.exploration == "none" else (self.exploration,)

    def explores_at(self, updates: int) -> tuple[int, ...]:
        """Updates before which the model explores: the first after `pretrain_share`, the others evenly after it."""
        if not self.ways:
            return ()
        first = round(self.pretrain_share * updates)
        return tuple(first + number * (updates - first) // self.rounds for number in range(self.rounds))

    def identity(self) -> dict[str, Any]:
        """Without what a control does not use, and without the router of a dense model."""
        unused = {*(_OF_EXPLORATION if not self.ways else ()), *(_OF_ROUTING if self.n_experts == 1 else ())}
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in unused}


def train_flops(cell: TaskCell) -> float:
    """FLOPs of the matrix products: of learning three forward passes over every text, and of exploration seven
    words for each block of four: three of a proposal and four of what was done, or of the description."""
    settings = cell.settings
    assert isinstance(settings, TextWorld)
    model, words = settings.model, len(WORDS)
    width = settings.text_tokens - 1
    learnt = 3 * width * counts.prefill_flops_per_token(model, words, width) * cell.budget * settings.batch_texts
    of_word = counts.decode_flops_per_token(model, words, settings.text_tokens // 2)
    walk = 7 * settings.text_tokens / ATTEMPT_TOKENS * of_word
    walks = settings.n_trajectories * settings.rounds * len(settings.ways)
    return float(learnt + walks * walk)


TASK = Task(
    name="text-world",
    title="a language model acts in a world of text and learns from its errors",
    source="arXiv 2409.03256; world, model and sizes are ours",
    settings=TextWorld,
    metrics=(
        Metric("success_rate", "", "share of held-out instances whose goal is reached, with feedback and the likeliest "
               "words", "higher"),
        Metric("self_correction_rate", "", "mean over instances with an infeasible action of the share of these that "
               "are followed by a feasible action on a shortest way to the goal", "higher"),
        Metric("recovery_rate", "", "the same for any feasible action", "higher"),
        Metric("infeasible_rate", "", "mean over instances of the share of actions that are not feasible"),
        Metric("success_without_feedback", "", "share of instances that are reached without an infeasible action: "
               "without feedback the likeliest action repeats itself", "higher"),
        Metric("success_speculative", "", "success_rate where the model predicts the feedback to its action and "
               "proposes another one if that is an error", "higher"),
        Metric("infeasible_rate_speculative", "", "infeasible_rate of these walks, thoughts not counted"),
        Metric("feedback_accuracy", "", "mean over instances of the share of actions whose feedback is predicted, "
               "both words", "higher"),
        Metric("plan_excess", "actions", "actions beyond a shortest plan, mean over instances that are reached"),
        Metric("action_loss", "nats/word", "of the words of expert actions on held-out instances"),
        Metric("random_success", "", "success_rate of random actions out of those that can be feasible", "higher"),
        Metric("train_loss", "nats/word", "of the words to be predicted, in the last tenth of training"),
        Metric("utilisation", "", "Jain's index of the loads of experts in the last tenth of training, mean over "
               "layers; null for a dense model", "higher"),
        Metric("n_parameters", "parameters", "all parameters of the model, its routers included"),
    ),
    budget=Budget("updates", "updates", "gradient steps, imitation and learning from exploration together"),
    train="scaling.tasks.world.training:train_cells",
    flops=train_flops,
    flops_are="counted",
    tables=("evals", "curves"),
    code=("scaling.tasks.text_world", "scaling.tasks.world", "scaling.model", "scaling.training.optimiser",
          "scaling.training.step", "scaling.training.initial_values"),
)  # fmt: skip
