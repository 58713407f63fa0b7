"""The command line: which commands there are. What a command needs is imported when it is called."""

import ast
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter

from cytoarch import __version__
from cytoarch.errors import CytoarchError
from flows.console import EXIT_USAGE, say, stderr_console

FLOWS = (
    "map_brain",
    "ingest_brain",
    "trace_cortex",
    "embed_brain",
    "embed_points",
    "train_classifier",
    "train_decoder",
    "parcellate_brain",
    "score_brain",
    "evaluate_layers",
    "evaluate_areas",
    "evaluate_structure",
    "study",
    "find_borders",
    "cluster_brain",
    "compare_brains",
    "reconstruct_brain",
    "segment_neurons",
    "pretrain_encoder",
    "export_brain",
    "watch_inbox",
    "take_arrival",
)
"""Modules of flows/, each with the flow of its name."""
PREPARING = ("manifest", "phantom", "convert_weights", "cut_atlas")
TAKING_HOME = ("export", "view")
DRAWING = ("draw", "import_annotations", "export_annotations")
CHECKING = {"verify": ("verify", "verify-brain"), "validate": ("validate",)}
CARING = ("doctor", "status", "gc")
COMPARING = ("compare",)


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code: 0 done, 1 broken, 2 wrong use, 3 some sections failed."""
    try:
        result = application()(list(arguments), exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:  # printed where it was found
        return EXIT_USAGE
    except CytoarchError as error:
        say(stderr_console(), "error", str(error), "bold red")
        return EXIT_USAGE
    return int(result or 0)


def application() -> App:
    """The command-line application."""
    app = App(
        name="python -m flows",
        version=__version__,
        help="Map the cytoarchitecture of whole brains.",
        error_console=stderr_console(),
    )
    app.default_parameter = Parameter(negative="")
    for name in FLOWS:
        app.command(f"flows.commands:{name}", name=_spoken(name), help=_first_sentence(name, name))
    for name in PREPARING:
        app.command(f"flows.preparing:{name}", name=_spoken(name), help=_first_sentence("preparing", name))
    for name in TAKING_HOME:
        app.command(f"flows.taking_home:{name}", name=name, help=_first_sentence("taking_home", name))
    for name in CARING:
        app.command(f"flows.caring:{name}", name=name, help=_first_sentence("caring", name))
    for name in COMPARING:
        app.command(f"flows.comparing:{name}", name=name, help=_first_sentence("comparing", name))
    for name in DRAWING:
        app.command(f"flows.drawing:{name}", name=_spoken(name), help=_first_sentence("drawing", name))
    for name, spoken in CHECKING.items():
        app.command(f"flows.checking:{name}", name=spoken, help=_first_sentence("checking", name))
    return app


def _spoken(name: str) -> str:
    return name.replace("_", "-")


def _first_sentence(module: str, function: str) -> str:
    """The first line of a function's docstring, read from its file: importing it would take seconds."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    found = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
    return (ast.get_docstring(found[function]) or "").partition("\n")[0]
