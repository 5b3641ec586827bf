"""Which runs ended well, in the words of trackers, schedulers and people."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws import HOFFMANN
from analysis.tables import runs
from analysis.tables.status_words import says_how_runs_ended
from scaling.errors import InputError

N = np.repeat([1e8, 3e8, 1e9], 4)
D = np.tile([1e9, 3e9, 1e10, 3e10], 3)
GOOD = pd.DataFrame({"n_active": N, "tokens": D, "loss_val": 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28})


def read(status, **options):
    return runs.read_runs(GOOD.assign(status=status), law=HOFFMANN, **options)


def said(table):
    return " ".join([*table.notes, *map(str, table.doubts)])


@pytest.mark.parametrize(
    "word",
    ["ok", "finished", "FINISHED", "Completed", "COMPLETE", "done", "Success", "SUCCEEDED", "TERMINATED", " ok ", True,
     1, "1", 1.0, "yes"],
)  # fmt: skip
def test_a_run_that_ended_well_in_any_words_is_kept(word):
    assert len(read(word)) == len(GOOD)
    mixed = read([word] * 10 + ["failed" if isinstance(word, str) and word != "1" else type(word)(0)] * 2)
    assert len(mixed) == 10
    assert "rows 11 (" in said(mixed)


@pytest.mark.parametrize(
    "word",
    ["crashed", "Failed", "KILLED", "running", "preempted", "SCHEDULED", "ERROR", "PENDING", "TIMEOUT", "CANCELLED",
     "OUT_OF_MEMORY", "Out of memory", "NODE_FAIL", "node-fail", "diverged", "oom", "timed out", "in progress"],
)  # fmt: skip
def test_a_run_that_did_not_is_left_out_with_its_word_its_rows_and_the_remedy(word):
    table = read(["finished"] * 10 + [word] * 2)
    assert dict(table.dropped) == {f"status {word}": 2}
    assert "11" in said(table)
    assert f"status == '{word}'" in said(table)
    assert "`where`" in said(table)


@pytest.mark.parametrize("blank", [None, np.nan, "", "  ", "None", "unknown", "null"])
def test_nothing_said_is_unknown_and_kept_with_a_word(blank):
    table = read([blank] * 5 + ["ok"] * 6 + ["crashed"])
    assert len(table) == 11
    assert "status is blank in 5 rows" in said(table)
    everything = read([blank] * 12)
    assert len(everything) == 12
    assert not everything.dropped


def test_a_word_of_no_list_leaves_its_rows_out_beside_others_and_keeps_all_alone():
    some = read(["ok"] * 9 + ["archived"] * 3)
    assert dict(some.dropped) == {"status archived": 3}
    assert "archived is no word known here" in said(some)
    alone = read(["baseline"] * 6 + ["archived"] * 6)
    assert len(alone) == 12
    assert "archived" in said(alone)


def test_a_condition_on_status_decides_instead():
    status = ["ok"] * 4 + ["archived"] * 3 + ["crashed"] * 3 + [None] * 2
    assert len(read(status, where="status == 'ok' or status == 'archived'")) == 7
    assert len(read(status, where="status != 'crashed'")) >= 7
    crashed = read(status, where="status == 'crashed'")
    assert sorted(crashed.column("loss_val")) == sorted(GOOD["loss_val"][7:10])
    assert len(read(status, where="tokens > 0")) == 6  # another condition decides nothing
    with pytest.raises(InputError, match="status == 'running'"):
        read("running")


def test_numbers_are_flags_or_exit_codes():
    failed = GOOD.assign(loss_val=GOOD["loss_val"].where(GOOD.index > 1))
    flags = runs.read_runs(failed.assign(status=[0, 0] + [1] * 10), law=HOFFMANN)
    exits = runs.read_runs(failed.assign(status=[1, 137] + [0] * 10), law=HOFFMANN)
    only_zero = runs.read_runs(GOOD.assign(status=0), law=HOFFMANN)
    assert (len(flags), len(exits), len(only_zero)) == (10, 10, 12)
    assert "flags" in said(flags)
    assert "exit codes" in said(exits)
    assert "exit codes" in said(only_zero)
    assert len(read([True] * 6 + [False] * 6)) == 6
    years = read([2024] * 6 + [2025] * 6)
    assert len(years) == 12
    assert "2024, 2025" in said(years)


@pytest.mark.parametrize(
    ("name", "kept"), [("Status", 10), ("STATE", 10), ("Job State", 10), ("run_status", 10), ("county", 12)]
)
def test_a_column_of_a_similar_name_is_read_and_said_to_be(name, kept):
    table = runs.read_runs(GOOD.assign(**{name: ["finished"] * 10 + ["crashed"] * 2}), law=HOFFMANN)
    assert len(table) == kept
    assert (f"the column {name} is read as status" in said(table)) == (kept == 10)


def test_a_state_that_is_no_status_is_left_alone():
    table = runs.read_runs(GOOD.assign(State=["Ohio"] * 6 + ["failed"] * 6), law=HOFFMANN)
    assert len(table) == 12
    assert not says_how_runs_ended(pd.Series(["Ohio", "failed"]))
    asked = runs.read_runs(
        GOOD.assign(State=["finished"] * 6 + ["failed"] * 6), where="State == 'failed'", law=HOFFMANN
    )
    assert dict(asked.dropped) == {"not State == 'failed'": 6}


def test_names_in_another_case_are_ours_with_a_note():
    theirs = GOOD.rename(columns={"n_active": "N_Active", "tokens": "Tokens", "loss_val": "Loss-Val"})
    theirs = theirs.assign(Run_ID=range(12))
    table = runs.read_runs(theirs, law=HOFFMANN)
    assert table.column("tokens").tolist() == D.tolist()
    assert "the column Run_ID is read as run_id" in said(table)
