"""Scans of a brain into the store."""

from prefect import flow

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.contents import quality_page_product
from cytoarch.images.sections import IngestSettings, write_collection
from cytoarch.store.brain_store import BrainStore
from flows.parameters import BrainSource, RunSettings
from flows.stages import Summary, failures, final_state, for_each_brain, made_count, run_name, run_stage, workers
from tasks.ingest import STAGE, IngestStage, ingest_section, is_ingested, scan_sizes
from tasks.quality import QUALITY_PAGE_FILE, write_quality_page
from tasks.summaries import publish_section_table


@flow(name="ingest-brain", flow_run_name=run_name("ingest"))
def ingest_brain(
    source: BrainSource = BrainSource(),
    ingest: IngestSettings = IngestSettings(),
    tissue: TissueSettings = TissueSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Bring the sections of a brain into the store: pixels, labels and tissue.

    Args:
        source: The manifest, the scans and the store.
        ingest: How scans are read.
        tissue: How tissue is told from the slide.
        run: How the work is spread.

    """
    brains = source.brains()
    if len(brains) > 1:
        return for_each_brain(ingest_brain, source, brains, {"ingest": ingest, "tissue": tissue, "run": run})
    brain = brains[0]
    store = BrainStore(source.store_path)
    stage = IngestStage(source.store_path, brain, source.scans_folder, ingest, tissue, run.workers)
    with store.lock(brain.brain_id), workers(run) as runner:
        store.write_brain(brain)
        outcomes = run_stage(
            STAGE,
            runner,
            ingest_section,
            brain.kept,
            lambda section: {"stage": stage, "section": section},
            lambda section: is_ingested(stage, section),
            scan_sizes(brain, source.scans_folder),
        )
        write_collection(store, brain)
        made = write_quality_page(source.store_path, brain, failures(outcomes))
    publish_section_table(brain, outcomes)
    page = store.path(quality_page_product(brain.brain_id)) / QUALITY_PAGE_FILE
    notes = {"store": str(store.brain_path(brain.brain_id)), "quality": str(page)}
    return final_state(Summary(brain.brain_id, made_count(outcomes) + made, failures(outcomes), notes))
