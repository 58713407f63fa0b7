"""What is committed of a brain, read back."""

from prefect import flow
from prefect.artifacts import create_table_artifact

from cytoarch.store import verification
from cytoarch.store.brain_store import BrainStore
from flows.parameters import StoredBrain
from flows.stages import Summary, final_state, run_name
from tasks.cancelling import HOOKS
from tasks.progress import stage_progress
from tasks.summaries import artifact_key


@flow(name="verify-brain", flow_run_name=run_name("verify"), **HOOKS)
def verify_brain(brain: StoredBrain) -> Summary:
    """Read everything committed of a brain back and name what has changed; the next run heals it.

    Args:
        brain: The brain and its store.

    """
    store = BrainStore(brain.store_path)
    with store.lock_existing(brain.brain_id), stage_progress("verify", 1) as progress:
        found = verification.verify_brain(store, brain.brain_id, lambda done, total: progress.part("all", done, total))
        progress.finished("all")
    rows = [{"file": one.key, "found": one.found, "remedy": one.remedy} for one in found.faults]
    create_table_artifact(
        rows, key=artifact_key("verify", brain.brain_id), description=f"Faults in {brain.brain_id}: {len(rows)}"
    )
    notes = {"files": f"{found.files:,}", "bytes": f"{found.nbytes:,}", "of no record": f"{len(found.strays):,}"}
    return final_state(Summary(brain.brain_id, 0, {one.key: one.found for one in found.faults}, notes), "file")
