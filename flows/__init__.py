"""What runs, in which order. `python -m flows` is the terminal's door; deployments start the same flows.

Imported before Prefect, it has runs say every 90 s that they live, as those of deployments do (prefect.yaml): the
automation for lost runs counts on it. Where the environment says otherwise, that holds.
"""

import os

HEARTBEAT_S = "90"

os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", HEARTBEAT_S)
