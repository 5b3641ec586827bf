"""What the expert count of a decision is worth: the speedups of every E at the training compute that was chosen."""

from __future__ import annotations

from analysis.decision.answer import Answer
from analysis.fitting.fit import Fit
from analysis.worth.asked import question_of
from analysis.worth.worth import Worth, worth_of_fit
from scaling.errors import InputError


def worth_of_answer(answer: Answer, fit: Fit) -> Worth | None:
    """The speedups over dense models by the fit behind an answer, at the training compute of its model.

    None where they would say nothing: the answer is dense or refused, the fit has no draws or no dense runs, or its
    models cannot be matched at equal loss.
    """
    best, asked = answer.best, answer.question
    of_experts = fit.definition.uses_experts and fit.definition.divides_compute
    if best.n_experts == 1 or answer.recommendation.refused or not fit.n_draws or not of_experts:
        return None
    if fit.experts and 1 not in fit.experts:
        return None
    budgets = (best.train_flops,)
    try:
        question = question_of(
            budgets,
            device=asked.device,
            rented=asked.rented,
            speed=asked.training_speed,
            mfu=asked.mfu,
            settings=asked.settings,
            family=asked.family,
            n_experts=tuple(choice.n_experts for choice in answer.choices if choice.n_experts > 1),
        )
        return worth_of_fit(fit, question, budgets, name=answer.law_file)
    except InputError:  # a law that cannot match models, such as one of several shapes
        return None
