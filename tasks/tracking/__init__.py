"""What MLflow remembers: one row per brain and configuration, and every model version. Nobody else talks to MLflow.

Runs are named explicitly in every call: MLflow's notion of an active run is per thread and would create stray runs.
Models are registered as folders of safetensors and JSON; nothing from the registry is ever executed or unpickled.
"""

from tasks.tracking.choosing import Chosen, choose_model, registered_digests
from tasks.tracking.comparing import (
    NAMES,
    SCORES,
    ComparedBrain,
    ComparedModel,
    compared_brains,
    compared_models,
)
from tasks.tracking.database import (
    CHAMPION,
    EXPERIMENT,
    VIEW,
    artifacts_path,
    database_path,
    database_uri,
    make_relative,
    run_url,
    tracking_uri,
)
from tasks.tracking.experiments import CLUSTERS, Question, experiments, of_brains
from tasks.tracking.fetching import fetch_head
from tasks.tracking.outages import Fault, TrackingLine, needed, unreached
from tasks.tracking.pretraining import log_pretraining
from tasks.tracking.registry import ModelVersion, register_head
from tasks.tracking.runs import (
    PARENT_KIND,
    BrainLedger,
    Context,
    Dataset,
    Remains,
    Status,
    git_revision,
    log_failed_ingestion,
    log_later,
)
from tasks.tracking.studies import log_study
from tasks.tracking.study_rows import log_figures

__all__ = [
    "CHAMPION",
    "CLUSTERS",
    "EXPERIMENT",
    "NAMES",
    "PARENT_KIND",
    "SCORES",
    "VIEW",
    "BrainLedger",
    "Chosen",
    "ComparedBrain",
    "ComparedModel",
    "Context",
    "Dataset",
    "Fault",
    "ModelVersion",
    "Question",
    "Remains",
    "Status",
    "TrackingLine",
    "artifacts_path",
    "choose_model",
    "compared_brains",
    "compared_models",
    "database_path",
    "database_uri",
    "experiments",
    "fetch_head",
    "git_revision",
    "log_failed_ingestion",
    "log_figures",
    "log_later",
    "log_pretraining",
    "log_study",
    "make_relative",
    "needed",
    "of_brains",
    "register_head",
    "registered_digests",
    "run_url",
    "tracking_uri",
    "unreached",
]
