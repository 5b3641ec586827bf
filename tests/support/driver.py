"""A sweep with fake work in a process of its own: `driver.py GRID OUT EXECUTOR [retry_failed] [fail_fast]`.

FAKE_OPTIONS in the environment is a JSON document with more options.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from scaling.errors import InputError, Stopped, WorkError
from sweeps import execute, grid, job
from sweeps.progress import Progress
from sweeps.ray_executor.watch import Patience
from sweeps.worker import CellFunctions


def main() -> None:
    path, out, executor, *flags = sys.argv[1:]
    more = json.loads(os.environ.get("FAKE_OPTIONS", "{}"))
    if "patience" in more:
        more["patience"] = Patience(*more["patience"])
    options = job.Options(
        executor=executor,  # type: ignore[arg-type]
        retry_failed="retry_failed" in flags,
        fail_fast="fail_fast" in flags,
        **more,
    )
    try:
        with Progress() as progress:
            execute.run_sweep(
                grid.load_grid(path), Path(out), options, progress, CellFunctions("fakes:train", "fakes:measure")
            )
    except (InputError, WorkError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Stopped as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.number)


if __name__ == "__main__":
    main()
