"""Commands of sweeps: run, plan, status, pack, grids, suggest."""
