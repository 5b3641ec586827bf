"""A sweep with fake work in a process of its own: `driver.py GRID OUT EXECUTOR [retry_failed] [fail_fast]`."""

from __future__ import annotations

import sys
from pathlib import Path

from scaling.errors import InputError, WorkError
from sweeps import execute, grid, job
from sweeps.progress import Progress
from sweeps.worker import CellFunctions


def main() -> None:
    path, out, executor, *flags = sys.argv[1:]
    options = job.Options(
        executor=executor,  # type: ignore[arg-type]
        retry_failed="retry_failed" in flags,
        fail_fast="fail_fast" in flags,
    )
    try:
        with Progress() as progress:
            execute.run_sweep(
                grid.load_grid(path), Path(out), options, progress, CellFunctions("fakes:train", "fakes:measure")
            )
    except (InputError, WorkError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
