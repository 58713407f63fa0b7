"""What the units and the containers name is there: scripts, flags, settings, pools, each other."""

import importlib
import re
import shlex
import warnings
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from prefect.cli._app import _app as prefect_app
from prefect.settings.legacy import _get_valid_setting_names
from prefect.settings.models.root import Settings

from tests.deployments.scripts import FOLDER, imported

ROOT = FOLDER.parent
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = {path.name: path.read_text() for path in (FOLDER / "systemd").glob("*.service")}
EXAMPLE = dict(
    line.split("=", 1) for line in (FOLDER / "lab.env.example").read_text().splitlines() if re.match(r"\w+=", line)
)
IMAGE_ROOT = "/opt/cytoarch/"
OURS = {
    "CYTOARCH_STORE": "where the store lies, for the units and the volumes",
    "CYTOARCH_SCANS": "where the scans lie, for the volumes",
    "CYTOARCH_MLFLOW_HOSTS": "names of MLflow, for its command",
    "POSTGRES_PASSWORD": "of the database's own container",
}
"""Settings that no program of ours reads: the files themselves do."""


@pytest.fixture(scope="module")
def mlflow_server() -> click.Command:
    with warnings.catch_warnings():  # importing it warns of type hints of its own
        warnings.simplefilter("ignore")
        from mlflow.cli import server
    return server


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command that starts a Python program, from `python` on, by where it stands."""
    for name, service in SERVICES.items():
        if "command" in service:
            yield name, service["command"]
    for name, text in UNITS.items():
        (line,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
        words = shlex.split(line.replace("\\\n", " "))
        assert words[0] == f"{IMAGE_ROOT}.venv/bin/python", name
        yield name, ["python", *words[1:]]


COMMANDS = [pytest.param(words, id=name) for name, words in commands()]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_one_that_its_program_knows(words: list[str], mlflow_server: click.Command) -> None:
    assert words[0] == "python"
    given = [one.partition("=")[0] for one in words if one.startswith("--")]
    if words[1] != "-m":
        assert (ROOT / words[1]).is_file()
        text = (ROOT / words[1]).read_text()
        assert all(f'"{flag}"' in text for flag in given)
        return
    if words[2] == "prefect":
        prefect_app.parse_args(words[3:], exit_on_error=False, print_error=False)
        return
    assert words[2:4] == ["mlflow", mlflow_server.name]
    assert set(given) <= {flag for one in mlflow_server.params for flag in one.opts}


def test_workers_work_for_pools_that_are_made_and_every_pool_has_one() -> None:
    pools = set(imported("bootstrap").POOLS)
    found = {words[words.index("--pool") + 1] for _, words in commands() if "--pool" in words}
    assert found - {"%i"} == pools
    documented = re.findall(r"cytoarch-worker@(\w+)", UNITS["cytoarch-worker@.service"])
    assert set(documented) == pools


def test_every_setting_is_one_that_a_program_reads(mlflow_server: click.Command) -> None:
    named = set(EXAMPLE) | {name for one in SERVICES.values() for name in one.get("environment", {})}
    prefect = _get_valid_setting_names(Settings)
    mlflow = set(vars(importlib.import_module("mlflow.environment_variables")))
    mlflow |= {str(one.envvar) for one in mlflow_server.params} | {"MLFLOW_TRACKING_URI"}
    code = "\n".join(
        path.read_text() for folder in ("tasks", "flows", "deployments") for path in (ROOT / folder).glob("*.py")
    )
    code += (FOLDER / "prefect.yaml").read_text()
    for name in named:
        kind = name.partition("_")[0]
        if kind == "PREFECT":
            assert name in prefect, name
        elif kind == "MLFLOW":
            assert name in mlflow, name
        elif kind == "CYTOARCH":
            assert name in OURS or re.search(rf"\b{name}\b", code), name
        else:
            assert name in {"DO_NOT_TRACK", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}, name


def test_what_is_filled_in_is_in_the_example_that_is_filled_out() -> None:
    used = set(re.findall(r"\$\{(\w+)", "\n".join([(FOLDER / "compose.yaml").read_text(), *UNITS.values()])))
    assert used <= set(EXAMPLE)
    assert set(OURS) <= used, "what nothing fills in is not asked for"
    unset = re.findall(r"^UnsetEnvironment=(.*)$", "\n".join(UNITS.values()), re.MULTILINE)
    assert set(unset) <= set(EXAMPLE)


def test_no_password_is_shipped_and_nothing_is_open_to_other_machines() -> None:
    secret = {name: value for name, value in EXAMPLE.items() if re.search("PASSWORD|AUTH", name)}
    assert all(value in ("", "lab:PASSWORD") for value in secret.values()), "whoever starts with these is refused"
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    for name, text in UNITS.items():
        assert "0.0.0.0" not in text, name  # noqa: S104 - looked for, not listened at


def test_units_and_services_name_each_other_rightly() -> None:
    elsewhere = {"postgresql.service"}
    for name, text in UNITS.items():
        after = re.findall(r"[\w@-]+\.service", "".join(re.findall(r"^(?:After|Wants)=.*$", text, re.MULTILINE)))
        assert set(after) <= set(UNITS) | elsewhere, name
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], f"{name} waits for ever"
        for volume in service.get("volumes", []):
            source = volume.rpartition(":/")[0]
            assert source.startswith("${") or source in COMPOSE["volumes"], volume


def test_the_image_is_made_of_what_the_checkout_has() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert (ROOT / "constraints.txt").is_file()
    assert f"WORKDIR {IMAGE_ROOT.rstrip('/')}" in text
    assert SERVICES["worker"]["build"] == {"context": "..", "dockerfile": "deployments/Dockerfile"}
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert not {"flows", "tasks", "src", "deployments", "constraints.txt"} & set(ignored)
