"""Losses of other people's tables that are no nats per token: by their name, by rows, and by how they fall."""

from __future__ import annotations

import re

import numpy as np
import pytest
from planted import hoffmann_runs
from theirs import read

from analysis.fitting.published import PUBLISHED
from scaling.errors import InputError

ALL = np.arange(20)


def found(table):
    return [(doubt.code, doubt.rows) for doubt in table.doubts]


def with_loss(change, rows=ALL):
    frame = hoffmann_runs(noise=0.01)
    frame.loc[rows, "loss_val"] = change(frame.loc[rows, "loss_val"])
    return frame


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("val_ppl", "log(val_ppl)"),
        ("Perplexity", "log(Perplexity)"),
        ("c4_en/bpb", "`c4_en/bpb`*0.6931*BYTES_PER_TOKEN"),
        ("bits_per_byte", "bits_per_byte*0.6931*BYTES_PER_TOKEN"),
        ("val_bits", "val_bits*0.6931*BYTES_PER_TOKEN"),
    ],
)
def test_a_loss_of_another_name_is_refused_with_its_conversion(written, name, remedy):
    path = written(hoffmann_runs().rename(columns={"loss_val": name}))
    with pytest.raises(InputError) as refused:
        read(path, loss_val=name)
    proposed = dict(re.findall(r"`map` '(loss_val)=(.*?)'", str(refused.value))[:1])
    assert proposed == {"loss_val": remedy}
    assert read(path, loss_val=remedy.replace("BYTES_PER_TOKEN", "1.5")).doubts == ()
    kept = f"{name if name.isidentifier() else f'`{name}`'}*1"
    assert kept in str(refused.value)
    assert read(path, loss_val=kept).doubts == ()


@pytest.mark.parametrize("name", ["log_ppl", "ln(ppl)", "loss_8bits", "orbits", "val_loss"])
def test_names_that_only_look_like_it_are_taken(written, name):
    assert read(written(hoffmann_runs().rename(columns={"loss_val": name})), loss_val=name).doubts == ()


def test_perplexities_are_refused_whatever_their_median(written):
    """Of a median above any vocabulary's uniform guess, and of one far below."""
    frame, lower = with_loss(np.exp), with_loss(lambda loss: np.exp(loss - 0.7))
    assert lower["loss_val"].median() < 10
    for part in (frame, lower):
        with pytest.raises(InputError, match=r"`map` 'loss_val=log\(loss_val\)'") as refused:
            read(written(part))
        first = int(np.flatnonzero(part["loss_val"] > 13)[0]) + 1
        assert f"row{'s' if (part['loss_val'] > 13).sum() > 1 else ''} {first}" in str(refused.value)
        assert read(written(part), loss_val="log(loss_val)").doubts == ()


def test_perplexities_below_any_uniform_guess_fall_too_fast(written):
    frame = with_loss(lambda loss: np.exp(loss - 0.4))
    (doubt,) = read(written(frame[frame["loss_val"] < 12.4])).doubts
    assert doubt.code == "perplexity"
    assert "log(loss_val)" in doubt.message


@pytest.mark.parametrize("row", [0, 7, 19])
def test_one_perplexity_among_losses_is_named(written, row):
    frame = with_loss(lambda loss: np.exp(loss + 1), [row])
    assert found(read(written(frame))) == [("loss_above_uniform", (row + 1,))]


def test_the_vocabulary_says_what_a_uniform_guess_is(written):
    frame = with_loss(lambda loss: 6.0 + 0 * loss, [4])
    assert found(read(written(frame.assign(vocab_size=50257)))) == []
    (doubt,) = read(written(frame.assign(vocab_size=257))).doubts
    assert (doubt.code, doubt.rows) == ("loss_above_uniform", (5,))
    assert "5.549" in doubt.message  # ln 257
    with pytest.raises(InputError, match="in all 20 rows"):
        read(written(with_loss(lambda loss: loss + 4).assign(vocab_size=257)))


def test_losses_that_do_not_vary_or_that_rise_are_doubted(written):
    assert [code for code, _ in found(read(written(with_loss(lambda loss: 3.2 + 0 * loss))))] == ["loss_constant"]
    accuracy = with_loss(lambda loss: 6 - loss)
    assert "loss_rises" in {code for code, _ in found(read(written(accuracy)))}
    fixed = accuracy.assign(tokens=np.tile([1e9, 1e10, 1e11, 1e12], 5)[:20])
    fixed["loss_val"] = 3 - 0.05 * np.log(fixed["tokens"] / 1e10) + 0.2 * np.log(fixed["n_active"] / 1e8)
    (doubt,) = read(written(fixed)).doubts
    assert doubt.columns == ("loss_val", "n_active")
    assert "16 of 16" in doubt.message
    falling = fixed.assign(loss_val=6 - fixed["loss_val"] + 0.2 * np.log(1e12 / fixed["tokens"]))
    assert found(read(written(falling))) == []


@pytest.mark.parametrize("name", ["chinchilla-rounded", "chinchilla-epoch", "kaplan-2020", "overtraining-2024"])
def test_losses_of_published_laws_are_not_doubted(written, name):
    """On designs of 8 to 60 runs, small models and large, with 1 % of noise."""
    law, rng = PUBLISHED[name].definition, np.random.default_rng(0)
    for number in range(10):
        n = 8 + 5 * number
        frame = hoffmann_runs().sample(n, replace=True, random_state=number, ignore_index=True)
        frame["n_active"] = 10 ** rng.uniform(6.5 + number % 4, 8.5 + number % 4, n)
        frame["tokens"] = frame["n_active"] * 10 ** rng.uniform(0.5, 2.5, n)
        columns = {"n_active": frame["n_active"], "tokens": frame["tokens"], "n_active_nonembed": frame["n_active"]}
        frame["loss_val"] = law.loss(PUBLISHED[name].params, columns) * np.exp(rng.normal(0, 0.01, n))
        assert read(written(frame)).doubts == ()
