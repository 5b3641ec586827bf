"""Mutations of valid files: each is drawn from a seed, and says in words what it did."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_RAW = "@raw@"  # a text that stands in a JSON document without its quotes
_VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", "1", "nan", 0, -1, 1, 2.5, -0.0, 1e300, -1e300, 1e-300, 10**9, 2**70, [], {}, [None],
    [[]], {"a": 1}, [1, 2, 3], "\u0000", "\u202e<b>{}%s", "a" * 5000, f"{_RAW}NaN", f"{_RAW}-Infinity", f"{_RAW}1e999",
    f"{_RAW}{'9' * 500}", f"{_RAW}{'[' * 60}{']' * 60}", f"{_RAW}{'{' * 3000}", f"{_RAW}01", f'{_RAW}"\\ud800"',
    f"{_RAW}[{'0,' * 3000}0]",
)  # fmt: skip
_WORDS = (
    "", "nan", "NaN", "inf", "-inf", "1e300", "-1", "0", "1e-300", "x", "no", "on", "true", "null", "~", "010", "0o10",
    "0x1F", "1:30", "1_000", "1,5", "1.000,5", "1e5", "2M", "80G", "2026-10-01", ".inf", "!!int 3",
    "!!python/name:os.x {}", "&a [*a]", "*b", "[", "]", "{", "}", "[1, [2]]", "{a: 1}", "'", '"',
    "99999999999999999999", "1" * 400, "é", "\t", "|", "- 1", "<<: {a: 1}", "%", "@", "`", "# x", "8x7B", "2/8",
)  # fmt: skip
_CELLS = (
    "", "nan", "NaN", "inf", "-inf", "1e300", "-1", "0", "1e-300", "x", "no", "1,5", "1.000,5", "1e5", "2M", "80G", '"',
    "'", "2026-10-01", "99999999999999999999", "1" * 400, "\u0661\u0662", "8x7B", "2/8", "dense", "-", "N/A", "=1+1",
    "\x00", "a,b",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """The bytes of a file, and what was done to the valid one."""

    content: bytes
    what: str


def of_json(document: Any, seed: int) -> Mutant:
    """A JSON document with one to three places changed, or its text damaged."""
    chance = random.Random(seed)
    if chance.random() < 0.12:
        return _damaged(json.dumps(document), chance)
    document, done = copy.deepcopy(document), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if places:
            path = chance.choice(places)
            done.append(f"{_shown(path)}: {chance.choice(_JSON_CHANGES)(document, path, chance)}")
    text = re.sub(rf'"{_RAW}((?:[^"\\]|\\.)*)"', lambda found: json.loads(f'"{found[1]}"'), json.dumps(document))
    return Mutant(text.encode("utf-8", "surrogatepass"), "; ".join(done))


def of_lines(text: str, seed: int) -> Mutant:
    """A text such as YAML with a word, an indent or a line changed."""
    chance = random.Random(seed)
    if chance.random() < 0.15:
        return _damaged(text, chance)
    lines, done = text.splitlines(), []
    for _ in range(chance.choice((1, 1, 2))):
        number = chance.randrange(len(lines))
        words = list(re.finditer(r"[^\s,:\[\]{}]+", lines[number]))
        kind = chance.randrange(8)
        if kind == 0:
            lines.insert(chance.randrange(len(lines) + 1), lines[number])
        elif kind == 1 and len(lines) > 1:
            del lines[number]
        elif kind == 2:
            lines[number] = chance.choice(("  ", "\t", " ")) + lines[number]
        elif words:
            word, new = chance.choice(words), chance.choice(_WORDS)
            lines[number] = lines[number][: word.start()] + new + lines[number][word.end() :]
        done.append(f"line {number + 1}: {lines[min(number, len(lines) - 1)][:80]!r}")
    return Mutant("\n".join(lines).encode() + b"\n", "; ".join(done))


def of_table(text: str, seed: int) -> Mutant:
    """A CSV with cells, a header, a row or a column changed."""
    chance = random.Random(seed)
    if chance.random() < 0.15:
        return _damaged(text, chance)
    rows, done = [line.split(",") for line in text.splitlines()], []
    for _ in range(chance.choice((1, 1, 2, 4))):
        row, column = chance.randrange(1, len(rows)), chance.randrange(len(rows[0]))
        kind, new = chance.randrange(12), chance.choice(_CELLS)
        if kind == 0:
            rows[0][column] = chance.choice(
                ("", "loss_val", "tokens", "n_active", "n_experts", "x y", "run_id", "status")
            )
        elif kind == 1:
            rows.append(list(rows[row]))
        elif kind == 2:
            rows[row] = rows[row][: chance.randrange(len(rows[row]))]
        elif kind == 3:
            rows[row].append(new)
        elif kind == 4:
            for cells in rows[1:]:
                cells[min(column, len(cells) - 1) :][:1] = [new]
                if len(cells) > column:
                    cells[column] = new
        elif len(rows[row]) > column:
            rows[row][column] = new
        done.append(f"kind {kind}, row {row}, column {column}, {new[:20]!r}")
    return Mutant("\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass") + b"\n", "; ".join(done))


def of_bytes(content: bytes, seed: int) -> Mutant:
    """A binary file cut, or with bytes overwritten."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        length = chance.randrange(len(content))
        return Mutant(content[:length], f"cut to {length} bytes")
    changed, places = bytearray(content), []
    for _ in range(chance.choice((1, 2, 8))):
        place = chance.randrange(len(changed))
        changed[place] = chance.randrange(256)
        places.append(place)
    return Mutant(bytes(changed), f"bytes {places} overwritten")


def _damaged(text: str, chance: random.Random) -> Mutant:
    """The bytes of a text damaged, as by another encoding or a cut."""
    content = text.encode()
    place = chance.randrange(len(content) + 1)
    changes: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        f"cut to {place} bytes": lambda: content[:place],
        f"UTF-8 mark, cut at {place}": lambda: b"\xef\xbb\xbf" + content[:place],
        "UTF-16": lambda: text.encode("utf-16"),
        f"byte 255 at {place}": lambda: content[:place] + b"\xff" + content[place:],
        f"NUL at {place}": lambda: content[:place] + b"\x00" + content[place:],
        "twice": lambda: content + b"\n" + content,
        "a PDF": lambda: b"%PDF-1.7\n\x93\x8c\x8b\x9e",
        f"quote at {place}": lambda: content[:place] + b'"' + content[place:],
        f"bracket at {place}": lambda: content[:place] + b"[" + content[place:],
    }
    what = chance.choice(list(changes))
    return Mutant(changes[what](), what)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document but itself; of long lists those of the first and the last."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in items if len(items) <= 8 or isinstance(value, dict) else (*items[:2], items[-1]):
        yield (*path, key)
        yield from _places(item, (*path, key))


def _parent(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        document = document[step]
    return document


def _replace(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    value = chance.choice(_VALUES)
    _parent(document, path)[path[-1]] = copy.deepcopy(value)
    return f"replaced by {value!r}"[:80]


def _delete(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    del _parent(document, path)[path[-1]]
    return "deleted"


def _scale(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    parent, factor = _parent(document, path), chance.choice((-1, 0, 1e3, 1e-3, 1e30, 0.5))
    value = parent[path[-1]]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _replace(document, path, chance)
    parent[path[-1]] = value * factor
    return f"times {factor:g}"


def _rename(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    parent = _parent(document, path)
    if not isinstance(parent, dict):
        return _replace(document, path, chance)
    name = chance.choice(("", "x", "E", "0", "law", "n_active", "__class__", f"{path[-1]} "))
    parent[name] = parent.pop(path[-1])
    return f"named {name!r}"


def _resize(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    value = _parent(document, path)[path[-1]]
    if not isinstance(value, list) or not value:
        return _replace(document, path, chance)
    if chance.random() < 0.5:
        del value[chance.randrange(len(value)) :]
        return f"cut to {len(value)}"
    value.append(copy.deepcopy(chance.choice((value[0], None, "x", [value[0]]))))
    return f"{len(value)} long"


def _wrap(document: Any, path: tuple[Any, ...], chance: random.Random) -> str:
    parent = _parent(document, path)
    parent[path[-1]] = [parent[path[-1]]]
    return "in a list"


_JSON_CHANGES = (_replace, _replace, _replace, _delete, _scale, _scale, _rename, _resize, _wrap)


def _shown(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
