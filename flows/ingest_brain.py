"""Scans of a brain into the store."""

from prefect import flow

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.sections import LabelsStep, ManifestFile, SectionStep, scan_sizes
from cytoarch.steps.tissue import DrawnTissueStep, QualityPageStep, QualityStep, TissueStep
from cytoarch.store.collection import write_collection
from flows.parameters import BrainSource, RunSettings
from flows.stages import Summary, final_state, for_each_brain, held_brain, run_name, run_steps, run_whole, workers
from tasks.cancelling import HOOKS
from tasks.summaries import publish_section_table


@flow(name="ingest-brain", flow_run_name=run_name("ingest"), **HOOKS)
def ingest_brain(
    source: BrainSource,
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
    scans = source.scans_folder
    steps = (
        SectionStep(ManifestFile(scans, "path", ingest.rehash), ingest=ingest),
        LabelsStep(ManifestFile(scans, "labels", ingest.rehash), ingest=ingest),
        DrawnTissueStep(ManifestFile(scans, "tissue_path", ingest.rehash), tissue.pixel_size_um, ingest=ingest),
        TissueStep(tissue),
        QualityStep(),
    )
    with held_brain(source.store_path, brains[0]) as brain, workers(run) as runner:
        made = run_steps("ingest", runner, brain, steps, run, sizes_of=lambda left: scan_sizes(left, scans))
        write_collection(brain.catalogue, brain.brain)
        made += run_whole("quality", brain, QualityPageStep())
        publish_section_table(brain)
        page = QualityPageStep.opened(brain.catalogue.path(QualityPageStep().product()))
        notes = {"store": str(brain.catalogue.folder), "quality": str(page)}
        return final_state(Summary(brain.brain_id, made, dict(brain.failed), notes))
