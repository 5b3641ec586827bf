"""Counts of other people's tables: what a parameter count counts, what follows from it, and what an import assumed."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
from planted import public_data, table_of
from theirs import GOOD, read
from typer.testing import CliRunner

from analysis.fitting.fit import fit
from analysis.laws import HOFFMANN, JOINT_MOE, LAWS, YUN
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from scaling.config import counts
from scaling.config.model import ModelConfig
from scaling.errors import InputError
from scaling.schema import RUNS

# Conventions


MODEL = {"n_layers": 3, "d_model": 64, "d_expert": 96, "top_k": 2, "router": "topk"}


def counted(n_experts):
    """A row with the counts of our own cost accounting, the judge of every formula here."""
    parameters = counts.parameters(ModelConfig(n_experts=n_experts, **MODEL), 1000)
    names = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed")
    return {"n_experts": n_experts, "top_k": 2, "d_model": 64, "vocab_size": 1000} | {
        n: getattr(parameters, n) for n in names
    }


COUNTED = pd.DataFrame([counted(e) for e in (1, 4, 16)]).assign(tokens=1e9, loss_val=3.0)


@pytest.mark.parametrize("dropped", [
    ["n_active_nonembed", "n_total_nonembed"], ["n_active", "n_total"], ["n_active", "n_total_nonembed"],
    ["n_active_nonembed", "n_total"],
])  # fmt: skip
def test_embeddings_are_taken_out_or_put_in_as_our_accounting_does(written, dropped):
    """Embedding and head of ours are untied: 2 V d."""
    table = runs.read_runs(written(COUNTED.drop(columns=dropped)), {"tied_embeddings": "0"})
    for name in dropped:
        assert table.column(name).tolist() == COUNTED[name].tolist()
        assert any(note.startswith(f"{name} derived as") and "2 V d (untied)" in note for note in table.notes)


def test_tied_embeddings_count_once_and_each_row_says_which(written):
    given = ["n_active", "vocab_size", "d_model", "tied_embeddings", "tokens", "loss_val"]
    frame = COUNTED.assign(tied_embeddings=[True, False, None])[given]
    table = runs.read_runs(written(frame))
    taken = table.column("n_active") - table.column("n_active_nonembed")
    np.testing.assert_array_equal(taken, [64_000, 128_000, np.nan])
    assert "n_active_nonembed derived as n_active - V d (tied) in 1 row" in table.notes


def test_without_the_word_nothing_is_derived_from_a_vocabulary_and_the_error_asks_for_it(written):
    path = written(COUNTED[["n_active", "d_model", "vocab_size", "n_experts", "tokens", "loss_val"]].iloc[1:])
    assert "n_active_nonembed" not in runs.read_runs(path).frame
    with pytest.raises(InputError, match="`map` tied_embeddings=1"):
        read(path, LAWS["kaplan"])
    assert len(read(path, LAWS["kaplan"], tied_embeddings="0")) == 2
    with pytest.raises(InputError) as refused:
        read(written(GOOD), LAWS["kaplan"])
    assert "tied_embeddings" not in str(refused.value)


def test_the_dense_backbone_follows_from_the_size_of_an_expert(written):
    table = read(written(COUNTED.drop(columns="n_dense_nonembed")), YUN)
    assert table.column("n_dense_nonembed").tolist() == COUNTED["n_dense_nonembed"].tolist()
    notes = [note for note in table.notes if note.startswith("n_dense_nonembed derived as")]
    assert notes[0] == "n_dense_nonembed derived as n_active_nonembed, as n_experts = 1 in 1 row"
    assert notes[1].endswith("- (k - 1) (n_total - n_active) / (E - k), for routed experts of one size in 2 rows")


def test_a_dense_model_has_one_count_and_a_routed_one_is_left_alone(written):
    frame = COUNTED[["n_experts", "n_total", "tokens", "loss_val"]]
    table = read(written(frame), JOINT_MOE)
    assert len(table) == 1
    assert table.column("n_active")[0] == COUNTED["n_active"][0]
    assert table.dropped == (("n_active missing", 2),)
    assert "n_active derived as n_total, as n_experts = 1 in 1 row" in table.notes
    assert not any("derived" in note for note in read(written(COUNTED), JOINT_MOE).notes)


def test_given_cells_are_never_replaced(written):
    frame = COUNTED.assign(n_active_nonembed=[1.0, 2.0, 3.0])
    table = runs.read_runs(written(frame), {"tied_embeddings": "0"})
    assert table.column("n_active_nonembed").tolist() == [1.0, 2.0, 3.0]


def test_tokens_follow_from_compute_by_an_active_count_only(written):
    frame = pd.DataFrame(
        {"n_dense_nonembed": [1e8, 1e9], "train_flops": [6e17, 6e18], "loss_val": [3.0, 2.8], "n_experts": [1, 8]}
    )
    table = read(written(frame), YUN)
    assert table.column("tokens").tolist() == [1e9, 1e9]
    assert "tokens computed as train_flops/(6 n_dense_nonembed); 6 N D leaves attention out" in table.notes
    total = frame.rename(columns={"n_dense_nonembed": "n_total"}).assign(n_experts=8, top_k=2)
    with pytest.raises(InputError, match="column tokens is missing"):  # a token does not meet all of n_total
        read(written(total), LAWS["sparsity"])
    both = read(written(GOOD.assign(train_flops=6 * GOOD["n_active"] * GOOD["tokens"])))
    assert not any("computed as" in note for note in both.notes)


def test_what_counts_are_taken_for_is_said_of_the_laws_columns(written):
    (told,) = [note for note in read(written(COUNTED), YUN).notes if note.startswith("assumed")]
    assert "n_dense_nonembed is the dense backbone" in told
    assert "n_active is" not in told
    (told,) = [note for note in runs.read_runs(written(COUNTED)).notes if note.startswith("assumed")]
    assert f"n_active is {RUNS['n_active'].meaning}; " in told
    assert "loss_val is in nats per token" in told


def test_a_study_folder_needs_no_such_notes(written, tmp_path):
    import_runs(written(COUNTED.assign(tokens=2.0)), tmp_path / "study")
    assert all("computed" in note for note in runs.read_runs(tmp_path / "study").notes)


# Whole tables


def test_the_routed_curves_by_the_sources_own_rule():
    """Clark et al.'s table (arXiv 2202.01169) through --map, one k and seed at routing frequency .5, against pandas."""
    path = public_data("clark_routed_curves.csv.gz")
    maps = {"loss_val": "loss_validation", "n_dense_nonembed": "dense_parameter_count", "n_experts": "num_experts"}
    table = runs.read_runs(path, maps, "k == 1 and seed == 42 and routing_frequency == 0.5", LAWS["clark"])
    raw = pd.read_csv(path)
    kept = raw.query("k == 1 and seed == 42 and routing_frequency == 0.5")
    kept = kept.dropna(subset="loss_validation")
    assert len(table) == len(kept)
    assert table.column("loss_val").tolist() == kept["loss_validation"].tolist()


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_units_conversions_and_formats_give_the_same_fit(written, ending):
    rng = np.random.default_rng(1)
    size, tokens = 10 ** rng.uniform(7.5, 10, 60), 10 ** rng.uniform(9, 11.5, 60)
    columns = {"n_active": size, "tokens": tokens}
    truth = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2000.0, "beta": 0.37}
    loss = HOFFMANN.loss(truth, columns)
    plain = fit(table_of(pd.DataFrame(columns | {"loss_val": loss})), HOFFMANN)
    theirs = pd.DataFrame({"size (M)": size / 1e6, "D": tokens / 1e9, "ppl": np.exp(loss)})
    path = written(theirs, f"theirs{ending}")
    converted = read(path, n_active="`size (M)`*1e6", tokens="D*1e9", loss_val="log(ppl)")
    fitted = fit(converted, HOFFMANN)
    # JSON of pandas has 10 digits, CSV 17: with exponents known to 1e-8 the coefficients are to about 1e-6.
    for name, value in truth.items():
        assert fitted.params[name] == pytest.approx(value, rel=1e-5)
        assert plain.params[name] == pytest.approx(value, rel=1e-5)


def test_import_says_what_it_assumed_and_drops_repeats_when_asked(written, tmp_path):
    from scaling.cli.main import app

    path = written(pd.concat([GOOD, GOOD.iloc[:1]]).rename(columns={"tokens": "D"}).assign(D=lambda f: f["D"] / 1e9))
    words = ["import", str(path), "--out", str(tmp_path / "study"), "--map", "tokens=D*1e9", "--json"]
    for more, rows in ([], 5), (["--drop-duplicates"], 4):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["n_runs"] == rows
        assert "tokens computed as D*1e9, as asked" in found["notes"]
        assert any(note.startswith("assumed: n_active is") for note in found["notes"])


@pytest.mark.parametrize(("name", "cell"), [("seed", "inf"), ("tokens", "1e30"), ("n_total_nonembed", "-inf")])
def test_an_import_refuses_counts_beyond_whole_numbers(written, tmp_path, name, cell):
    path = written(GOOD.assign(**{name: ["7", cell, "7", None]}))
    with pytest.raises(InputError, match=f"{name} = {float(cell):g} ".replace("+", r"\+")):
        import_runs(path, tmp_path / "study")
    where = f"not abs({name}) > 1e18"
    assert len(import_runs(path, tmp_path / "study", None, where)[0]) == 2  # and a condition on a blank cell is not met


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_million_rows_are_read_in_a_fraction_of_half_a_minute(written, ending):
    """The acceptance is 30 s for reading and fitting together; reading takes about 2 s of CSV and 7 s of JSON lines."""
    rng = np.random.default_rng(0)
    size, tokens = 10 ** rng.uniform(7, 10, 1_000_000), 10 ** rng.uniform(9, 12, 1_000_000)
    frame = pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": 1.8 + 480 / size**0.35 + 2000 / tokens**0.37})
    path = written(frame, f"theirs{ending}")
    start = time.process_time()
    table = read(path)
    assert time.process_time() - start < 15.0
    assert len(table) == 1_000_000
