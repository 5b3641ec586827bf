"""What commands of benchmarks share: `[--json] [part ...]` where they have parts, `STUDY [--json]` of a study."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence


def asked(
    name: str, description: str, parts: Mapping[str, str], arguments: Sequence[str] | None
) -> tuple[list[str], bool]:
    """The parts asked for (all by default), and whether the answer is to be JSON. Ends with status 2 for an unknown
    part."""
    width = max(map(len, parts))
    listed = "\n".join(f"  {part:{width}} {meaning}" for part, meaning in parts.items())
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog=f"parts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="what to measure; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in parts]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts)}")
    return options.parts or list(parts), options.json


def study_asked(name: str, description: str, study: str, arguments: Sequence[str] | None) -> tuple[str, bool]:
    """The folder of a study, and whether the answer is to be JSON. study: what the folder is, for the help."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help=study)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args(arguments)
    return options.study, options.json
