"""MLflow: one run for each cell, in the experiment of its study.

MLFLOW_TRACKING_URI says where; by default, the database `log/mlflow.db` in the study's folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.files import require_no_links
from sweeps.loggers.logger import FOLDER, LoggedRun

_MOST_PARAMS, _MOST_OF_VALUE = 100, 500  # of one call, and characters of a value
_ENDS = {"ok": "FINISHED"}


class MLflow:
    """Writes by MLflow's client. The handle of a run is its id there."""

    def __init__(self, study: Path) -> None:
        from mlflow import MlflowClient, entities

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        place = study / FOLDER / "mlflow.db"
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            require_no_links(place, study)
            place.parent.mkdir(parents=True, exist_ok=True)
        self._entities: Any = entities
        self._client: Any = MlflowClient(tracking_uri=where or f"sqlite:///{place.resolve()}")
        self._handles: dict[str, str] = {}
        self._experiments: dict[str, str] = {}

    def begin(self, run: LoggedRun, handle: str, after: int) -> str:
        if handle:
            self._client.update_run(handle, status="RUNNING")
        else:
            tags = {"mlflow.source.git.commit": str(run.settings.get("git_revision", "")), "run_id": run.run_id}
            handle = self._client.create_run(self._experiment(run.study), tags=tags, run_name=run.name).info.run_id
            params = [self._entities.Param(name, str(value)[:_MOST_OF_VALUE]) for name, value in run.settings.items()]
            for start in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(handle, params=params[start : start + _MOST_PARAMS])
        self._handles[run.run_id] = handle
        return handle

    def log(self, run_id: str, step: int, tokens: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        told = {**values, "train/tokens": float(tokens)}
        metrics = [self._entities.Metric(name, value, now, step) for name, value in told.items()]
        self._client.log_batch(self._handles[run_id], metrics=metrics)

    def end(self, run_id: str, status: str, results: Mapping[str, float]) -> None:
        handle, now = self._handles.pop(run_id), int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, 0) for name, value in results.items()]
        self._client.log_batch(handle, metrics=metrics, tags=[self._entities.RunTag("status", status)])
        self._client.set_terminated(handle, _ENDS.get(status, "FAILED"))

    def close(self) -> None:
        for handle in self._handles.values():
            self._client.set_terminated(handle, "KILLED")
        self._handles.clear()

    def _experiment(self, study: str) -> str:
        if study not in self._experiments:
            found = self._client.get_experiment_by_name(study)
            self._experiments[study] = found.experiment_id if found else self._client.create_experiment(study)
        return self._experiments[study]
