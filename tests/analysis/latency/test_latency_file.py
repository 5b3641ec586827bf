"""A latency law from a file holds together, or the field is named."""

from __future__ import annotations

import copy
import json

import pytest
from seeds import latency_document

from analysis.latency.law import load_latency_law
from scaling.errors import InputError


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("draws",), [], "`draws` have the shape"),
        (("draws", 0), [1.0], "draws: at [1]: "),
        (("draws", 2, 1), -1.0, "`draws`[2][1] is -1"),
        (("draws", 2, 1), None, "`draws`[2][1] is nan"),
        (("draws", 2, 5), 0, "`draws`[2][5] is 0"),
        (("draws", 2, 1), 1e300, "`draws`[2]: `layer_s`"),
        (("ratios",), [], "`ratios`"),
        (("ratios", 0), -0.5, "`ratios`"),
        (("dtype",), "int3", "`dtype` is 'int3'"),
        (("device", "bandwidth"), -1, "`bandwidth`"),
        (("device", "memory"), "80", "device.memory: "),
        (("device", "levels"), [[1e6]], "device.levels[0][1]: "),
        (("efficiency", "flops_share"), 2, "`flops_share`"),
        (("efficiency", "reread"), True, "efficiency.reread: "),
        (("n_rows",), -1, "`n_rows`"),
        (("after", "p90"), None, "after.p90: "),
        (("held_out",), [], "held_out: "),
    ],
)
def test_what_cannot_be_is_named(tmp_path, path, value, named):
    document = copy.deepcopy(latency_document())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file = tmp_path / "law.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as refused:
        load_latency_law(file)
    assert str(file) in str(refused.value)
    assert named in str(refused.value)


def test_the_law_itself_is_read(tmp_path):
    (tmp_path / "law.json").write_text(json.dumps(latency_document()))
    assert len(load_latency_law(tmp_path / "law.json").draws) == 5
