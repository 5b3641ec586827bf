"""End-to-end tables: what is read of a row, and what is said of one that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from engine_rows import engine_table

from analysis.latency.end_to_end import end_to_end, is_end_to_end, read_end_to_end
from scaling.errors import InputError

ONE = engine_table(("qwen3-30b-a3b",)).head(1)


def _with(**cells):
    return ONE.astype(object).assign(**cells)


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"silicon_tpot_ms": "fast"}, "silicon_tpot_ms is not a number"),
        ({"batch_size": np.nan}, "batch_size must be a positive number"),
        ({"tp_size": 0}, "tp_size must be a positive number"),
        ({"isl": -4}, "isl must not be negative"),
        ({"attention_dp_size": "two"}, "attention_dp_size is not a number"),
        ({"tp_size": 1e30}, "tp_size must be at most"),
        ({"batch_size": np.inf}, "batch_size must be at most"),
        ({"tp_size": 1.5}, "tp_size must be a whole number"),
        ({"precision": "fp3"}, "precision: no number format"),
        ({"model_path": "org/unheard-of"}, "'unheard-of'"),
        ({"model_path": np.nan}, "a row without a model"),
        ({"system": "abacus"}, "a device that is not in the table"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_or_counted(cells, why):
    table = pd.concat([ONE, _with(**cells)], ignore_index=True)
    rows = end_to_end(table, "file.csv", None, tolerant=True)
    assert len(rows.frame) == 1
    ((said, count),) = rows.left_out
    assert why in said
    assert count == 1
    if "system" not in cells:  # rows of other devices are left out in any case
        with pytest.raises(InputError, match=r"file\.csv: row 2") as refused:
            end_to_end(table, "file.csv", None)
        assert why in str(refused.value)


def test_a_missing_column_is_named_in_either_case():
    for tolerant in (True, False):
        with pytest.raises(InputError, match="osl"):
            end_to_end(ONE.drop(columns="osl"), "file.csv", None, tolerant=tolerant)
    assert is_end_to_end(ONE)
    assert not is_end_to_end(ONE.drop(columns="osl"))


def test_other_spellings_and_compressed_files_are_read(tmp_path):
    renamed = ONE.rename(
        columns={"model_path": "model", "system": "gpu", "isl": "input_len", "osl": "output_len",
                 "batch_size": "max_concurrency", "tp_size": "tensor_parallel_size",
                 "silicon_tpot_ms": "median_tpot_ms"}
    )  # fmt: skip
    renamed.assign(gpu="NVIDIA H100-SXM").to_csv(tmp_path / "mine.csv.gz", index=False)
    ours, theirs = end_to_end(ONE, "", None), read_end_to_end(tmp_path / "mine.csv.gz", None)
    assert theirs.iterations == pytest.approx(ours.iterations)
    assert theirs.tpot_s == pytest.approx(ours.tpot_s)


def test_a_configuration_in_the_folder_goes_before_a_name(tmp_path):
    config = {"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 16,
              "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 4096, "vocab_size": 1000,
              "architectures": ["Qwen3ForCausalLM"]}  # fmt: skip
    (tmp_path / "qwen3-30b-a3b.json").write_text(json.dumps(config))
    (tmp_path / "broken.json").write_text("{")
    small = end_to_end(ONE, "", tmp_path).iterations[0]
    assert (small < end_to_end(ONE, "", None).iterations[0]).any()
    rows = end_to_end(_with(model_path="org/broken"), "", tmp_path, tolerant=True)
    assert rows.left_out[0][1] == 1


def test_a_device_without_the_arithmetic_of_a_format_reads_less_and_multiplies_as_before():
    bf16, nvfp4 = (end_to_end(_with(precision=name), "", None).iterations[0] for name in ("bf16", "fp4"))
    assert nvfp4[1] == pytest.approx(bf16[1] * 4.5 / 16)
    assert nvfp4[3] == pytest.approx(bf16[3])


def test_devices_that_are_multiplied_are_counted_once():
    plain = {"attention_dp_size": 1, "moe_tp_size": 8, "moe_ep_size": 1}
    both = end_to_end(_with(tp_size=64, **(plain | {"moe_ep_size": 8})), "", None)
    once = end_to_end(_with(tp_size=8, **plain), "", None)
    assert both.frame["devices"].tolist() == [8]
    assert both.iterations == pytest.approx(once.iterations)


def test_a_batch_of_data_parallel_attention_is_that_of_one_rank():
    """4 of each of 64 ranks, which are 8 devices, are 32 of each of 8 devices: 256 in all."""
    layout = {"tp_size": 1, "moe_tp_size": 1, "moe_ep_size": 8}
    plain = end_to_end(_with(**layout, attention_dp_size=8, batch_size=32), "", None)
    multiplied = end_to_end(_with(**(layout | {"moe_tp_size": 8}), attention_dp_size=64, batch_size=4), "", None)
    assert plain.frame["by_expert"].tolist() == [True]
    assert plain.frame["concurrency"].tolist() == [256]
    assert multiplied.frame[["concurrency", "devices"]].to_numpy().tolist() == [[256, 8]]
    assert multiplied.iterations == pytest.approx(plain.iterations)


def test_stages_share_the_sequences():
    staged = end_to_end(_with(pp_size=2, batch_size=32), "", None)
    assert staged.iterations == pytest.approx(end_to_end(_with(batch_size=16), "", None).iterations)
