"""What MLflow remembers: one row per brain and configuration, and every model version. Nobody else talks to MLflow.

Runs are named explicitly in every call: MLflow's notion of an active run is per thread and would create stray runs.
Models are registered as folders of safetensors and JSON; nothing from the registry is ever executed or unpickled.
"""

from tasks.tracking.database import (
    CHAMPION,
    EXPERIMENT,
    artifacts_path,
    database_path,
    database_uri,
    make_relative,
    run_url,
    tracking_uri,
)
from tasks.tracking.fetching import fetch_head
from tasks.tracking.registry import ModelVersion, register_head
from tasks.tracking.runs import PARENT_KIND, BrainLedger, git_revision

__all__ = [
    "CHAMPION",
    "EXPERIMENT",
    "PARENT_KIND",
    "BrainLedger",
    "ModelVersion",
    "artifacts_path",
    "database_path",
    "database_uri",
    "fetch_head",
    "git_revision",
    "make_relative",
    "register_head",
    "run_url",
    "tracking_uri",
]
