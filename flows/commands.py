"""Flows as commands of the terminal, made when they are asked for: a flow's module takes seconds to import."""

import functools
import importlib
import inspect
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any, cast, get_args, get_origin

from cyclopts import Group, Parameter
from prefect import Flow
from prefect.client.schemas.objects import State
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape

from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import CytoarchError
from flows.compare_brains import CompareChoice
from flows.console import EXIT_BROKEN, EXIT_OK, EXIT_SECTIONS_FAILED, bars, say, stderr_console
from flows.evaluate_structure import JudgedChoice
from flows.parameters import BrainSource, LearnedBrains, MapSettings, StoredBrain
from flows.segment_neurons import NeuronChoice
from flows.serving import has_own_server, start_prefect, unwatched
from flows.stages import Summary
from flows.study import StudyChoice
from flows.watch_inbox import InboxSettings
from tasks.progress import listening

UNPREFIXED = (
    BrainSource,
    StoredBrain,
    InboxSettings,
    StudyChoice,
    NeuronChoice,
    CompareChoice,
    LearnedBrains,
    JudgedChoice,
)
"""Their fields are flags of their own: they are said in every call."""


def __getattr__(name: str) -> Any:
    """The command of the flow that is the name of its module."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _command(getattr(importlib.import_module(f"flows.{name}"), name))


def _command(each: "Flow[..., Any]") -> Any:
    """A flow as a command with the flow's own signature and help."""
    parameters = list(inspect.signature(each.fn, eval_str=True).parameters.values())

    @functools.wraps(each.fn)
    def command(**flags: Any) -> int:
        return run_flow(each, stderr_console(), {one.name: _gathered(one, flags) for one in parameters})

    shown = [flag for one in parameters for flag in _flags(each.name, one)]
    shown = [_headed(place, flag) for place, flag in enumerate(shown)]
    signature = inspect.Signature(shown, return_annotation=int)
    command.__signature__ = signature  # type: ignore[attr-defined]  # functions carry one where it is set
    command.__annotations__ = {flag.name: flag.annotation for flag in shown}
    return command


def _flags(flow_name: str, parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """What a parameter of a flow is on the command line: itself, or each field of the settings it holds."""
    kind = inspect.Parameter.KEYWORD_ONLY  # a value is never told by its place alone
    if parameter.annotation is MapSettings:
        return [
            inspect.Parameter(name, kind, default=field.get_default(), annotation=_described(field))
            for name, field in MapSettings.model_fields.items()
        ]
    annotation = parameter.annotation
    if annotation in UNPREFIXED or (annotation is EmbedSettings and flow_name.startswith("embed-")):
        annotation = Annotated[annotation, Parameter(name="*")]
    return [parameter.replace(annotation=annotation, kind=kind)]


def _described(field: FieldInfo) -> Any:
    return Annotated[field.annotation, Parameter(help=field.description)]


def _headed(place: int, flag: inspect.Parameter) -> inspect.Parameter:
    """A flag below a heading: settings below one of their own, in the order in which a flow states them."""
    plain = flag.annotation
    while get_origin(plain) is Annotated:
        plain = get_args(plain)[0]
    own = isinstance(plain, type) and issubclass(plain, BaseModel)
    heading = Group(flag.name.replace("_", " ").capitalize(), sort_key=place) if own else Group("Choices", sort_key=1)
    return flag.replace(annotation=Annotated[flag.annotation, Parameter(group=heading)])


def _gathered(parameter: inspect.Parameter, flags: Mapping[str, Any]) -> Any:
    """The value of a flow's parameter, from the flags that were given."""
    if parameter.annotation is MapSettings:
        return MapSettings(**{name: flags[name] for name in MapSettings.model_fields if name in flags})
    return flags.get(parameter.name, parameter.default)


def run_flow(each: "Flow[..., Any]", console: Console, parameters: Mapping[str, Any]) -> int:
    """Run a flow with bars and a closing summary; returns the exit code."""
    started = time.monotonic()
    if console.is_terminal:
        console.print("starting Prefect", highlight=False)
    start_prefect(lambda text: console.print(text, highlight=False, soft_wrap=True))
    quietly = unwatched() if has_own_server() else nullcontext()
    with quietly, bars(console) as listener, listening(listener):
        state = cast("State[Any]", each(**parameters, return_state=True))
    result = state.result(raise_on_failure=False)
    if isinstance(result, CytoarchError):
        raise result
    if not state.is_completed():
        if isinstance(result, BaseException):
            console.print("".join(traceback.format_exception(result)), markup=False, highlight=False, soft_wrap=True)
        say(console, str(state.name), str(state.message), "bold red")
        return EXIT_BROKEN
    if not isinstance(result, Summary):
        return EXIT_OK
    _print_summary(each.name, result, time.monotonic() - started, console)
    return EXIT_SECTIONS_FAILED if result.failed else EXIT_OK


def _print_summary(name: str, summary: Summary, seconds: float, console: Console) -> None:
    noun = "runs started" if name == "watch-inbox" else "products made"
    what = f"{summary.made} {noun}" if summary.made else "nothing to do, all is current"
    print(f"\n{name}  {summary.brain_id}: {what} ({seconds:.0f} s)")
    width = max(map(len, summary.notes), default=0)
    for key, value in summary.notes.items():
        print(f"{key:<{width}}  {value}")
    for section_id, reason in summary.failed.items():
        console.print(f"[bold red]failed[/] {section_id}: {escape(reason)}", highlight=False, soft_wrap=True)
