"""The model that maps a brain: named by a person, or the champion that fits."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cytoarch.encoders.registry import EncoderSettings
from cytoarch.errors import CytoarchError, ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.heads import load_head
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import CHAMPION, client
from tasks.tracking.fetching import MODEL_URI, fetch_head
from tasks.tracking.registry import ModelVersion

AUTO = "auto"
"""Asks for the champion of a target whose encoder and pixel size fit; `auto:TARGET` names another target."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Chosen(NamedTuple):
    """A head in the store that was chosen to map a brain."""

    digest: str
    card: HeadCard
    version: ModelVersion | None
    """Under which it is registered; None: it was named by its digest."""


def choose_model(
    store: BrainStore,
    wanted: str,
    target: str,
    misfit: Callable[[HeadCard], str],
    allow: Sequence[EncoderSettings] = (),
) -> Chosen:
    """The head that is asked for, which is in the store then.

    `wanted` is models:/NAME@ALIAS, models:/NAME/VERSION, a digest, `auto` or `auto:TARGET`: the champion of a target
    for which `misfit` gives no reason against it; of several the one that learned from most brains, then the one with
    the better headline score, then the first by name. Raises ModelError, listing the champions there are and why each
    does not fit, if none does.
    """
    if wanted == AUTO or wanted.startswith(f"{AUTO}:"):
        return _fitting(store, wanted.partition(":")[2] or target, misfit, allow)
    if _DIGEST.fullmatch(wanted):
        return Chosen(wanted, load_head(store.models.path(wanted)).card, None)
    match = MODEL_URI.fullmatch(wanted)
    if match is None:
        raise ModelError(
            f"{wanted!r} names no model; models:/NAME@{CHAMPION}, models:/NAME/VERSION, the digest of a model in the "
            f"store, or {AUTO} is needed. {_known(store)}"
        )
    digest = fetch_head(store, wanted, allow)
    return Chosen(digest, load_head(store.models.path(digest)).card, _registered(store, *match.groups()))


def _fitting(
    store: BrainStore, target: str, misfit: Callable[[HeadCard], str], allow: Sequence[EncoderSettings]
) -> Chosen:
    fitting: list[tuple[int, float, Chosen]] = []
    against: list[str] = []
    for version in champions(store):
        name = f"models:/{version.name}/{version.version}"
        try:
            digest = fetch_head(store, name, allow)
            card = load_head(store.models.path(digest)).card
        except CytoarchError as error:
            against.append(f"{version.name}: {error}")
            continue
        reason = f"it maps {card.target}" if card.target != target else misfit(card)
        if reason:
            against.append(f"{version.name}: {reason}")
        else:
            score = float(version.tags.get("headline_macro_f1", "-inf"))
            chosen = Chosen(digest, card, _version(version, champion=True))
            fitting.append((-len(card.brains), -score, chosen))
    if not fitting:
        listed = "".join(f"\n  {one}" for one in against) or " none"
        raise ModelError(
            f"no champion for {target} fits this brain. Champions there are:{listed}\nTrain one on brains with labels, "
            f"name a model (models:/NAME/VERSION), or another target ({AUTO}:TARGET)"
        )
    return min(fitting, key=lambda one: one[:2])[2]


def champions(store: BrainStore) -> list[Any]:
    """The champions of all registered models, by name."""
    mlflow = client(store)
    found = [
        mlflow.get_model_version_by_alias(one.name, CHAMPION)
        for one in all_models(store)
        if CHAMPION in (one.aliases or {})
    ]
    return sorted(found, key=lambda one: str(one.name))


def registered_digests(store: BrainStore) -> set[str]:
    """The digests of all heads that the registry names."""
    found: set[str] = set()
    for model in all_models(store):
        versions = client(store).search_model_versions(f"name = '{model.name}'")
        found |= {str(one.tags["model_digest"]) for one in versions if "model_digest" in one.tags}
    return found


def all_models(store: BrainStore) -> list[Any]:
    """The registered models."""
    models: list[Any] = []
    token = None
    while True:
        page = client(store).search_registered_models(max_results=200, page_token=token)
        models += page
        token = page.token
        if not token:
            return models


def _known(store: BrainStore) -> str:
    names = sorted(str(one.name) for one in all_models(store))
    return f"Registered models: {', '.join(names) or 'none'}"


def _registered(store: BrainStore, name: str, alias: str | None, number: str | None) -> ModelVersion:
    mlflow = client(store)
    version = mlflow.get_model_version_by_alias(name, alias) if alias else mlflow.get_model_version(name, number)
    kept = mlflow.get_registered_model(name).aliases or {}
    return _version(version, champion=str(kept.get(CHAMPION)) == str(version.version))


def _version(version: Any, champion: bool) -> ModelVersion:
    reason = str(version.tags.get("verdict", ""))
    return ModelVersion(str(version.name), int(version.version), champion, str(version.run_id), reason)
