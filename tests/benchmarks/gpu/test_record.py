"""The rows of a part survive what ends it, and nothing that was measured is measured again."""

import pytest

from benchmarks.gpu.record import ERROR, OK, RUNNING, SKIPPED, Record, read, write


def test_a_case_that_fails_is_a_row_and_the_next_goes_on(tmp_path):
    record = Record.at(tmp_path / "part.parquet", 60)

    def fails():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    assert record.case("first", fails)["status"] == ERROR
    assert record.case("second", lambda: {"ms": 2.0})["ms"] == 2.0
    first, second = read(tmp_path / "part.parquet")
    assert (first["case"], first["status"], second["status"]) == ("first", ERROR, OK)
    assert "RESOURCE_EXHAUSTED" in first["error"]
    assert "test_record.py" in first["error"]  # where it happened
    assert "ms" not in first


def test_what_ended_is_not_repeated_and_what_had_no_time_is(tmp_path):
    path = tmp_path / "part.parquet"
    hasty = Record.at(path, 5)
    hasty.case("quick", lambda: {"value": 1})
    assert hasty.case("long", lambda: pytest.fail("ran without time"), needs=10)["status"] == SKIPPED
    again = Record.at(path, 60)
    assert not again.owes("quick")
    assert again.case("quick", lambda: pytest.fail("measured twice"))["value"] == 1
    assert again.owes("long")
    assert again.case("long", lambda: {"value": 2}, needs=10)["status"] == OK
    assert {row["case"]: row["value"] for row in read(path)} == {"quick": 1, "long": 2}


def test_the_case_in_which_a_part_was_killed_is_known_and_left_out_the_second_time(tmp_path):
    path = tmp_path / "part.parquet"

    class Killed(BaseException):
        pass

    def dies():
        (row,) = read(path)
        assert (row["case"], row["status"]) == ("hangs", RUNNING)
        raise Killed

    for _ in range(2):
        record = Record.at(path, 60)
        assert record.owes("hangs")
        with pytest.raises(Killed):
            record.case("hangs", dies)
    again = Record.at(path, 60)
    assert not again.owes("hangs")
    assert again.case("hangs", lambda: pytest.fail("ran again"))["status"] == ERROR


def test_columns_of_any_kind_and_damaged_files_end_nothing(tmp_path):
    path = tmp_path / "deep" / "part.parquet"
    write(path, [{"case": "a", "value": 1.5}, {"case": "b", "value": "none"}, {"case": "c", "flag": True}])
    assert read(path) == [{"case": "a", "value": "1.5"}, {"case": "b", "value": "none"}, {"case": "c", "flag": True}]
    path.write_bytes(b"PAR1 damaged")
    assert read(path) == []
    assert read(tmp_path / "absent.parquet") == []
