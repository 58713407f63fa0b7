"""What MLflow remembers: one row per brain and configuration, and every model version. Nobody else talks to MLflow.

Runs are named explicitly in every call: MLflow's notion of an active run is per thread and would create stray runs.
Models are registered as folders of safetensors and JSON; nothing from the registry is ever executed or unpickled.
"""

from tasks.tracking.choosing import Chosen, choose_model
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
from tasks.tracking.neurons import log_neurons
from tasks.tracking.registry import ModelVersion, register_head
from tasks.tracking.runs import PARENT_KIND, BrainLedger, git_revision, log_later
from tasks.tracking.studies import log_study

__all__ = [
    "CHAMPION",
    "EXPERIMENT",
    "PARENT_KIND",
    "BrainLedger",
    "Chosen",
    "ModelVersion",
    "artifacts_path",
    "choose_model",
    "database_path",
    "database_uri",
    "fetch_head",
    "git_revision",
    "log_later",
    "log_neurons",
    "log_study",
    "make_relative",
    "register_head",
    "run_url",
    "tracking_uri",
]
