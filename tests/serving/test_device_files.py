"""Devices from a file: replaced fields, new devices, and errors that name file, device and field."""

from dataclasses import asdict, replace

import pytest
import yaml

from scaling.errors import InputError
from scaling.serving.devices import device, names, read_devices


def written(tmp_path, text):
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    return path


def test_a_price_replaces_that_of_the_table_with_source_and_date(tmp_path):
    path = written(tmp_path, "h100: {usd_per_hour: 2.10, price_source: our contract, price_date: 2026-10-01}\n")
    price = {"usd_per_hour": 2.1, "price_source": "our contract", "price_date": "2026-10-01"}
    assert read_devices(path)["h100"] == replace(device("h100"), **price)


def test_a_new_device(tmp_path):
    row = "{peak_flops: 1.0e14, bandwidth: 1e12, memory: 3e10, dtype: bfloat16, source: sheet, usd_per_hour: 1, "
    mine = read_devices(written(tmp_path, f"mine: {row}price_source: bill, price_date: June}}\n"))["mine"]
    assert (mine.name, mine.memory, mine.peak_flops) == ("mine", 3e10, 1e14)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h100: {usd_per_hour: 2.1}", "devices.yaml:1:1: h100: price_source, price_date missing"),
        (
            "h100: {usd_per_hour: cheap, price_source: a, price_date: b}",
            r"devices.yaml:1:22: h100: usd_per_hour must be a number, found 'cheap'",
        ),
        ("h100: {usd_per_hour: -1, price_source: a, price_date: b}", "usd_per_hour must be a positive number"),
        ("h100: {memory: 80}", "1:16: h100: memory must be at least 1e\\+08, found 80"),
        ("h100: {usd_per_hour: true, price_source: a, price_date: b}", "usd_per_hour must be a number, found True"),
        ("h100: {usd_per_hour: 1, price_source: null, price_date: b}", "price_source must be a text, found nothing"),
        (
            "h100: {bandwith: 1}",
            "unknown field bandwith; did you mean `bandwidth`; allowed: title, peak_flops, bandwidth",
        ),
        ("h100: {memory: 8e10, memory: 4e10}", r"1:22: memory: given twice, first in line 1"),
        ("h100: {memory: 8e10}\nh100: {memory: 4e10}", r"2:1: h100: given twice, first in line 1"),
        ("h100: {link_devices: 0o10}", "1:22: h100: link_devices must be a number, found '0o10'"),
        ("h100: {memory: 1:30}", "memory must be a number, found '1:30'"),
        ("h100: {memory: .inf}", "memory must be a number, found '.inf'"),
        ("h100: {memory: 1e300}", "memory must be a positive number up to 1e"),
        ("h100: {title: [a]}", "title must be a text"),
        ("h100: 3", "1:1: h100: must be fields of a device"),
        ("h100: !!python/name:os.system {}", "1:7: the tag"),
        ("mine: {memory: 1e9}", "mine: peak_flops, bandwidth, dtype, source, usd_per_hour missing"),
        ("- h100", "expected devices by name"),
        ("h100: {usd", r"devices.yaml:1:\d+: not YAML"),
        ("", "1:1: .*expected devices by name"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_devices(written(tmp_path, text))


def test_numbers_are_decimal(tmp_path):
    row = "{peak_flops: 01.0e+14, memory: 080_000_000_000, bandwidth: 1e12, link_devices: 010, price_date: 2026-10-01}"
    read = read_devices(written(tmp_path, f"h100: {row}"))["h100"]
    assert (read.peak_flops, read.memory, read.bandwidth, read.link_devices) == (1e14, 8e10, 1e12, 10)
    assert read.price_date == "2026-10-01"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_devices(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", [name for name in names() if name != "cpu"])
def test_a_row_of_the_table_survives_a_file(tmp_path, name):
    row = asdict(device(name))
    fields = {field: value for field, value in row.items() if field not in ("name", "levels")}
    fields["peaks"] = dict(row["peaks"])
    assert asdict(read_devices(written(tmp_path, yaml.safe_dump({"copy": fields}, sort_keys=False)))["copy"]) == row | {
        "name": "copy"
    }
