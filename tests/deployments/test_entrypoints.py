"""Every entrypoint of prefect.yaml really loads, and the form it makes explains itself."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from tasks.cancelling import name_cancellation, watch_cancellation
from tasks.tracking.experiments import STUDIES
from tasks.tracking.pretraining import PRETRAINING_KIND

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOYMENTS = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
ENTRYPOINTS = [one["entrypoint"] for one in DEPLOYMENTS]


@pytest.fixture(scope="module", params=ENTRYPOINTS)
def flow(request: pytest.FixtureRequest) -> "Flow[..., Any]":
    path, _, name = request.param.partition(":")
    return load_flow_from_entrypoint(f"{ROOT / path}:{name}")


def test_every_flow_is_deployed() -> None:
    flows = {path.stem for path in (ROOT / "flows").glob("*.py") if "@flow(" in path.read_text()}
    assert {Path(entry.split(":")[0]).stem for entry in ENTRYPOINTS} == flows


def test_what_flows_tell_mlflow_of_studies_has_a_question() -> None:
    calls = [
        call
        for folder in ("flows", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("log_figures", "study_row")
    ]
    kinds = {one.args[1].value for one in calls if isinstance(one.args[1], ast.Constant)}
    named = {ast.unparse(one.args[1]) for one in calls if not isinstance(one.args[1], ast.Constant)}
    assert named == {"kind", "PRETRAINING_KIND"}, "handed on, and a name"
    assert kinds | {PRETRAINING_KIND} == set(STUDIES)


def test_an_entrypoint_loads_as_the_flow_its_file_is_named_after(flow: "Flow[..., Any]") -> None:
    assert flow.name == flow.fn.__name__.replace("_", "-")


def test_a_deployment_is_found_by_its_name_and_explains_itself(flow: "Flow[..., Any]") -> None:
    names = [one["name"] for one in DEPLOYMENTS]
    assert len(set(names)) == len(names)
    own = [one["name"] for one in DEPLOYMENTS if one["entrypoint"].endswith(f":{flow.fn.__name__}")]
    assert flow.name.endswith(own[0])
    assert all(name.startswith(own[0]) for name in own), "variants are named after it"
    assert len(flow.description or "") > 40, "what the page of the deployment shows"
    tags = [one["tags"] for one in DEPLOYMENTS if one["name"] in own]
    assert all(one[0] == "cytoarch" and len(one) > 1 for one in tags), "ours, and what about"


def test_every_flow_ends_when_it_is_cancelled_whatever_its_worker_hears(flow: "Flow[..., Any]") -> None:
    assert watch_cancellation in flow.on_running_hooks
    assert name_cancellation in flow.on_crashed_hooks


def test_fields_of_the_form_have_titles_and_an_order(flow: "Flow[..., Any]") -> None:
    schema = json.loads(parameter_schema(flow.fn).model_dump_json())
    for name, model in models_in(schema).items():
        fields = model["properties"]
        assert sorted(one["position"] for one in fields.values()) == list(range(len(fields))), name
        required = set(model.get("required", ()))
        assert [one["position"] for field, one in fields.items() if field in required] == list(range(len(required))), (
            name
        )
        titles = [one["title"] for one in fields.values() if "title" in one]
        assert all("_" not in title and title[0].isupper() for title in titles), f"{name}: {titles}"


def test_default_parameters_are_valid(flow: "Flow[..., Any]") -> None:
    schema = parameter_schema(flow.fn)
    several = {"name": "S1", "brains": ["B01", "B02"]}
    needed = {
        "brain": {"brain_id": "B01"},
        "study": several,
        "compare": several,
        "judged": several,
        "neurons": {"name": "N1"},
    }
    needed |= {name: {"name": "E1", "brains": ["B01"]} for name in ("encoder", "drawn")}
    needed |= {"source": {"manifest_path": "B01.csv"}, "manifest_path": "B01.csv"}
    given = {name: value for name, value in needed.items() if name in schema.required}
    validated = flow.validate_parameters(given)
    assert set(validated) <= set(schema.properties)


def models_in(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: model for name, model in schema["definitions"].items() if "properties" in model}


def test_every_field_of_the_form_is_described_and_unknown_ones_are_refused(flow: "Flow[..., Any]") -> None:
    schema = json.loads(parameter_schema(flow.fn).model_dump_json())
    undescribed = [
        f"{name}.{field}"
        for name, model in models_in(schema).items()
        for field, content in model["properties"].items()
        if not content.get("description")
    ]
    for name, content in schema["properties"].items():
        model = schema["definitions"].get(content.get("$ref", "").rpartition("/")[-1], {})  # may say it instead
        if not (content.get("description") or model.get("description")):
            undescribed.append(name)
    assert not undescribed
    assert all(model.get("additionalProperties") is False for model in models_in(schema).values())


def test_every_number_of_the_form_is_bounded(flow: "Flow[..., Any]") -> None:
    schema = json.loads(parameter_schema(flow.fn).model_dump_json())
    unbounded = []
    for name, model in models_in(schema).items():
        for field, content in model["properties"].items():
            for choice in content.get("anyOf", [content]):
                low = {"minimum", "exclusiveMinimum"} & set(choice)
                high = {"maximum", "exclusiveMaximum"} & set(choice)
                if choice.get("type") in ("integer", "number") and not (low and high):
                    unbounded.append(f"{name}.{field}")
    assert not unbounded


def test_schedules_are_shipped_inactive_with_time_zone_and_slug() -> None:
    schedules = [schedule for one in DEPLOYMENTS for schedule in one.get("schedules", [])]
    assert schedules
    for schedule in schedules:
        assert schedule["active"] is False
        assert schedule["timezone"]
        assert schedule["slug"]


def test_deployments_name_no_path_of_a_machine() -> None:
    text = (ROOT / "deployments" / "prefect.yaml").read_text()
    assert not re.search(r"(?<![\w{$])/(home|root|mnt|work|tmp)/", text)
