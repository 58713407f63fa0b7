"""Commands, progress bars and the closing summary of the terminal."""

import functools
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from cyclopts import App, CycloptsError, Parameter
from prefect import Flow
from prefect.client.schemas.objects import State
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from cytoarch import __version__
from cytoarch.drafting import draft_manifest
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import CytoarchError, StoreError
from cytoarch.images.conformance import conformance_faults
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.reporting.phantoms import draw_pictures
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from flows.cluster_brain import cluster_brain
from flows.embed_brain import embed_brain
from flows.embed_points import embed_points
from flows.ingest_brain import ingest_brain
from flows.map_brain import map_brain
from flows.parameters import DEFAULT_STORE, BrainSource, MapSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from flows.serving import start_prefect
from flows.stages import Summary
from flows.train_classifier import train_classifier
from flows.train_decoder import train_decoder
from flows.watch_inbox import InboxSettings, watch_inbox
from tasks.progress import Listener, listening

EXIT_OK, EXIT_BROKEN, EXIT_USAGE, EXIT_SECTIONS_FAILED = 0, 1, 2, 3

FLOWS: tuple["Flow[..., Any]", ...] = (
    map_brain,
    ingest_brain,
    embed_brain,
    embed_points,
    train_classifier,
    train_decoder,
    parcellate_brain,
    cluster_brain,
    watch_inbox,
)


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code: 0 done, 1 broken, 2 wrong use, 3 some sections failed."""
    console = Console(stderr=True)
    try:
        result = application(console)(
            list(arguments), exit_on_error=False, print_error=True, result_action="return_value"
        )
    except CycloptsError:  # printed where it was found
        return EXIT_USAGE
    except CytoarchError as error:
        console.print(f"[bold red]error[/]: {_escaped(str(error))}", highlight=False, soft_wrap=True)
        return EXIT_USAGE
    return int(result or 0)


def application(console: Console) -> App:
    """The command-line application."""
    app = App(
        name="python -m flows",
        version=__version__,
        help="Map the cytoarchitecture of whole brains.",
        error_console=console,
    )
    app.default_parameter = Parameter(negative="")
    for each in FLOWS:
        app.command(_command(each, console), name=each.name)

    @app.command(name="manifest")
    def manifest(
        folder: Path, *, brain: str = "", output: Path | None = None, labels_folder: Path | None = None
    ) -> int:
        """Draft a manifest from a folder of scans; a person completes it.

        Parameters
        ----------
        folder
            Folder of scans.
        brain
            Name of the brain all of them belong to; blank: left for a person.
        output
            Manifest to write; default: manifest.csv in the folder.
        labels_folder
            Folder of label images named like the scans; a '?' marks those whose name is not quite the same.

        """
        target = output or folder / "manifest.csv"
        with _bars(console) as listener:
            root, remarks = draft_manifest(
                folder, target, labels_folder, brain, lambda done, total: listener("read headers", done, total)
            )
        for remark in remarks:
            console.print(f"[yellow]look at[/]: {_escaped(remark)}", highlight=False, soft_wrap=True)
        print(f"draft     {target}")
        print("complete  brain_id, blank pixel sizes, and what else you know; remove each '?' you have checked")
        print(f"then      python -m flows map-brain --manifest-path {target} --scans-path {root}")
        return EXIT_OK

    @app.command(name="phantom")
    def phantom(
        folder: Path,
        *,
        brain: str = "P01",
        pictures: Annotated[bool, Parameter(negative="--no-pictures")] = True,
        request: Annotated[PhantomRequest, Parameter(name="*")] = PhantomRequest(),
    ) -> int:
        """Write a phantom brain: scans, label images, label table and manifest, with the truth beside them.

        Parameters
        ----------
        folder
            New folder to write into, or one that holds a phantom.
        brain
            Name of the brain.
        pictures
            Draw the sections beside their areas and layers, a close-up, and the folded surface.
        request
            What to write.

        """
        with _bars(console) as listener:
            path = write_phantom(folder, brain, request, lambda done, total: listener("phantom", done, total))
            drawn = draw_pictures(folder, lambda done, total: listener("pictures", done, total)) if pictures else ()
        print(f"manifest  {path}")
        print(f"truth     {folder / 'truth'}")
        for picture in drawn:
            print(f"picture   {picture}")
        return EXIT_OK

    @app.command(name="convert-weights")
    def convert(
        source: Path,
        target: Path,
        *,
        table: str,
        model: Literal["cytonet_r50", "cytonet_r50_vit"] = "cytonet_r50",
        config_path: Path | None = None,
        prefix: str = "",
        statistics: Literal["lvd1689m", "sat493m"] = "lvd1689m",
    ) -> int:
        """Turn a plain PyTorch state dict into a model folder: safetensors and config.json.

        Parameters
        ----------
        source
            File of torch.save that holds tensors only; one that would run code is refused.
        target
            New folder to write.
        table
            Which name becomes which: dinov3 (Meta's vision transformers), torchvision-r50, cytonet (our own names), or
            a CSV file with columns from, to. Every tensor must have its place.
        model
            The CytoNet to make; dinov3 needs none.
        config_path
            JSON file with the sizes of a CytoNet that is not the published one.
        prefix
            What the names stand under, such as state_dict. or module.
        statistics
            Images a DINOv3 model was trained on: photographs (lvd1689m) or satellite images (sat493m).

        """
        from cytoarch.encoders.conversion import convert_weights

        made = convert_weights(
            source, target, table, model=model, config_path=config_path, prefix=prefix, statistics=statistics
        )
        for name in made.left_out:
            console.print(f"[yellow]left out[/]: {_escaped(name)}", highlight=False, soft_wrap=True)
        print(f"folder    {made.folder} ({made.tensor_count} tensors)")
        print(f"digest    {made.digest}")
        print(f"encoder   {made.encoder_id}")
        return EXIT_OK

    _add_checks(app, console)
    return app


def _add_checks(app: App, console: Console) -> None:
    """The commands that look at what is in the store and change no pixel."""

    @app.command(name=["verify", "verify-brain"])
    def verify(brain: str, *, store_path: Path = DEFAULT_STORE) -> int:
        """Read everything committed of a brain back and name what has changed; the next run heals it.

        Parameters
        ----------
        brain
            Brain in the store.
        store_path
            Folder of the store.

        """
        store = BrainStore(store_path)
        with store.lock_existing(brain), _bars(console) as listener:
            found = verify_brain(store, brain, lambda done, total: listener("verify (bytes)", done, total))
        for fault in found.faults:
            print(f"{fault.key}: {fault.found}; {fault.remedy}")
        for key in found.strays:
            console.print(f"[yellow]belongs to no record[/]: {_escaped(key)}", highlight=False, soft_wrap=True)
        state = _counted(len(found.faults), "fault") if found.faults else "all as it was written"
        print(f"{brain}: {found.files:,} files, {found.nbytes / 1e9:.2f} GB: {state}")
        return EXIT_SECTIONS_FAILED if found.faults else EXIT_OK

    @app.command(name="validate")
    def validate(target: str, *, store_path: Path = DEFAULT_STORE) -> int:
        """Check that images conform to OME-Zarr (NGFF 0.5) and to our own rules; pixels are not read.

        Parameters
        ----------
        target
            Brain in the store, or folder of an image, a collection or any folder of them.
        store_path
            Folder of the store.

        """
        store = BrainStore(store_path)
        folder = store.brain_path(target) if target in store.brain_ids() else Path(target)
        if not folder.is_dir():
            known = ", ".join(store.brain_ids()) or "none"
            raise StoreError(f"{target!r} is neither a brain in {store_path} (brains there: {known}) nor a folder")
        with _bars(console) as listener:
            faults = conformance_faults(
                folder, on_progress=lambda done, total: listener("validate (images)", done, total)
            )
        for fault in faults:
            print(fault)
        print(f"{target}: {_counted(len(faults), 'fault') if faults else 'conforms to NGFF 0.5'}")
        return EXIT_SECTIONS_FAILED if faults else EXIT_OK


def _command(each: "Flow[..., Any]", console: Console) -> Any:
    """A flow as a command with the flow's own signature and help."""

    @functools.wraps(each.fn)
    def command(*args: Any, **kwargs: Any) -> int:
        return run_flow(each, console, args, kwargs)

    # where a brain comes from is said in every call, and the encoder is what embed-brain is about: no prefix
    signature = inspect.signature(each.fn, eval_str=True)
    parameters = [
        parameter.replace(annotation=Annotated[parameter.annotation, Parameter(name="*")])
        if parameter.annotation in (BrainSource, StoredBrain, InboxSettings, MapSettings)
        or (parameter.annotation is EmbedSettings and each.name.startswith("embed-"))
        else parameter
        for parameter in signature.parameters.values()
    ]
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=int)  # type: ignore[attr-defined]  # functions carry one where it is set
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def run_flow(each: "Flow[..., Any]", console: Console, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Run a flow with bars and a closing summary; returns the exit code."""
    started = time.monotonic()
    start_prefect(lambda text: console.print(text, highlight=False, soft_wrap=True))
    with _bars(console) as listener, listening(listener):
        state = cast("State[Any]", each(*args, **kwargs, return_state=True))
    result = state.result(raise_on_failure=False)
    if isinstance(result, CytoarchError):
        raise result
    if not state.is_completed():
        if isinstance(result, BaseException):
            console.print("".join(traceback.format_exception(result)), markup=False, highlight=False, soft_wrap=True)
        console.print(f"[bold red]{state.name}[/]: {_escaped(str(state.message))}", highlight=False, soft_wrap=True)
        return EXIT_BROKEN
    if not isinstance(result, Summary):
        return EXIT_OK
    _print_summary(each.name, result, time.monotonic() - started, console)
    return EXIT_SECTIONS_FAILED if result.failed else EXIT_OK


def _print_summary(name: str, summary: Summary, seconds: float, console: Console) -> None:
    noun = "runs started" if name == watch_inbox.name else "products made"
    what = f"{summary.made} {noun}" if summary.made else "nothing to do, all is current"
    print(f"\n{name}  {summary.brain_id}: {what} ({seconds:.0f} s)")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in summary.notes.items():
        table.add_row(f"[bold]{_escaped(key)}[/]", _escaped(value))
    Console(width=max(console.width, 200) if not sys.stdout.isatty() else None, highlight=False).print(table)
    for section_id, reason in summary.failed.items():
        console.print(f"[bold red]failed[/] {section_id}: {_escaped(reason)}", highlight=False, soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[Listener]:
    """A bar per stage on a terminal; elsewhere a line per finished stage."""
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bars: dict[str, TaskID] = {}
    finished: set[str] = set()
    adding = threading.Lock()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def listen(stage: str, done: float, total: int, note: str = "") -> None:
            with adding:  # tasks report from several threads
                if stage not in bars:
                    bars[stage] = progress.add_task(stage, total=total, note="")
            progress.update(bars[stage], completed=done, total=total, note=note)
            if not console.is_terminal and done >= total and stage not in finished:
                finished.add(stage)
                console.print(f"{stage}: {total}/{total} {note}".rstrip(), highlight=False)

        yield listen


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
