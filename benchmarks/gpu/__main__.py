"""`python -m benchmarks.gpu`."""

from benchmarks.gpu.command import main

raise SystemExit(main())
