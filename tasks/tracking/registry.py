"""Trained heads as versions of registered models, and which of them is the champion."""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cytoarch.digests import canonical_json
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.heads import load_head
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import CHAMPION, HEAD_FOLDER, artifacts, client
from tasks.tracking.experiments import experiment_id, of_brains, search_rows
from tasks.tracking.runs import Dataset, flat, git_revision, log_datasets, log_metrics, log_params, run_tags

SCORE = "headline/macro_f1"
"""The figure by which heads are compared."""

DEVIATION, DEVIATION_TAG = "headline/macro_f1_sd", "headline_macro_f1_sd"
"""Its standard deviation over seeds, where there are several: one head is better than another by more than that."""

CHALLENGER = "challenger"
"""The best version that is not the champion but was asked the same question."""

_VERDICT = "verdict"
"""Tag that says why a version is the champion or not; a run that was killed before may have left none."""


class ModelVersion(NamedTuple):
    """A version of a registered model."""

    name: str
    version: int
    champion: bool
    run_id: str
    reason: str
    """Why it was made the champion when it was registered, or was not."""


class Question(NamedTuple):
    """What a head was asked: scores of different questions cannot be compared."""

    target: str
    classes: str
    split: str

    def tags(self) -> dict[str, str]:
        """The question as tags of a version."""
        digest = _digest(list(self))
        return {"question": digest, **{f"question.{name}": value for name, value in self._asdict().items()}}


def question(card: HeadCard, held_out: Mapping[str, str]) -> Question:
    """What a head was asked, by its card and the held-out sections, each with the digest of its labels.

    The colour of a class is none of it.
    """
    classes = [one.model_dump(mode="json", include={"name", "ids"}) for one in card.classes]
    return Question(card.target, _digest(classes), _digest(dict(held_out)))


def register_head(
    store: BrainStore,
    brain_id: str,
    digest: str,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    held_out: Mapping[str, str],
    parent: Callable[[], str] | None = None,
) -> ModelVersion:
    """Make a trained head a version of its registered model, unless it is one already.

    The first version becomes the champion. A later one does if it was asked the same question (target, classes,
    held-out sections and their labels) and its headline, the macro-F1 on the hardest of them, is higher, by more than
    the deviation over seeds where there are several. The answer of another question is not compared, and the version
    says so. The best of the others that were asked the champion's question is the challenger.

    Args:
        store: The store that holds the head.
        brain_id: The brain it was trained on.
        digest: The head in the store.
        metrics: Its figures by name.
        params: How it was trained.
        held_out: The sections that it was scored on, each with the digest of its labels.
        parent: Opens the run that the training's run hangs below, where there is one.

    """
    card = load_head(store.models.path(digest)).card
    name = f"{card.target}-{card.kind}-{brain_id}"
    asked = question(card, held_out).tags()
    version = _registered(store, name, digest, asked)
    if version is None:
        run = _training_run(store, brain_id, digest, card, metrics, params, held_out, parent)
        tags = {"model_digest": digest, "encoder_digest": card.encoder_digest, "brain": brain_id, **asked}
        tags |= {
            "encoder": card.embedding.encoder,
            "brains": ", ".join(card.brains)[:4000],
            "git_revision": git_revision(),
        }
        if math.isfinite(metrics.get(SCORE, math.nan)):
            tags["headline_macro_f1"] = repr(metrics[SCORE])
            tags |= {DEVIATION_TAG: repr(metrics[DEVIATION])} if DEVIATION in metrics else {}
        version = new_version(store, name, run, tags)
    champion, reason = _settle_champion(store, name, version, card)
    client(store).set_terminated(version.run_id)
    is_champion = int(champion.version) == int(version.version)
    return ModelVersion(name, int(version.version), is_champion, str(version.run_id), reason)


def _settle_champion(store: BrainStore, name: str, version: Any, card: HeadCard) -> tuple[Any, str]:
    """The champion after a version was judged, once for all, and why that version is it or not."""
    mlflow, champion = client(store), _champion(store, name)
    if champion is not None and _VERDICT in version.tags:
        return champion, str(version.tags[_VERDICT])
    promoted, reason = _judge(version, champion)
    if promoted:
        mlflow.set_registered_model_alias(name, CHAMPION, version.version)
    second = champion if promoted else version
    if second is not None and int(second.version) != int((version if promoted else champion).version):
        _settle_challenger(store, name, version if promoted else champion, second)
    said = f"{_described(card)} {reason[:1].upper()}{reason[1:]}."
    mlflow.update_model_version(name, version.version, description=said)
    mlflow.set_model_version_tag(name, version.version, _VERDICT, reason)
    return version if promoted else champion, reason


def _settle_challenger(store: BrainStore, name: str, champion: Any, version: Any) -> None:
    """Make a version the challenger if it was asked what the champion was, and is the best of those that are not it."""
    score = version.tags.get("headline_macro_f1")
    if score is None or version.tags.get("question") != champion.tags.get("question"):
        return
    known = _alias(store, name, CHALLENGER)
    same = known is not None and known.tags.get("question") == champion.tags.get("question")
    best = known.tags.get("headline_macro_f1") if same and int(known.version) != int(champion.version) else None
    if best is None or float(score) > float(best):
        client(store).set_registered_model_alias(name, CHALLENGER, version.version)


def _judge(version: Any, champion: Any) -> tuple[bool, str]:
    """Whether a version takes the place of the champion, and why."""
    if champion is None or champion.version == version.version:
        return True, "champion: the first of its name"
    other = f"version {champion.version}"
    score, best = version.tags.get("headline_macro_f1"), champion.tags.get("headline_macro_f1")
    if version.tags["question"] != champion.tags.get("question"):
        return False, (
            f"not compared with the champion, {other}: {_difference(version.tags, champion.tags)}; "
            f"to make this version the champion all the same, give it the alias {CHAMPION!r} in MLflow"
        )
    if score is None:
        return False, f"not the champion: it has no {SCORE}"
    if best is None:
        return True, f"champion: {other} has no {SCORE}"
    margin = max(float(one.tags.get(DEVIATION_TAG, 0)) for one in (version, champion))
    is_better = float(score) - float(best) > margin
    said = f"{SCORE} {float(score):.4f} is {'above' if is_better else 'not above'} the {float(best):.4f} of {other}"
    if margin:
        said += f" by more than the deviation over seeds, {margin:.4f}"
    return is_better, f"{'champion' if is_better else 'not the champion'}: {said}"


def _difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    if "question" not in theirs:
        return "that does not say on which classes and held-out sections it was scored"
    said = {"target": "another target", "classes": "other classes", "split": "other held-out sections or labels"}
    return " and ".join(text for name, text in said.items() if ours[f"question.{name}"] != theirs[f"question.{name}"])


def _registered(store: BrainStore, name: str, digest: str, asked: Mapping[str, str]) -> Any:
    """The version of a model that is this head, or None. One of an earlier version of this code learns its question."""
    mlflow = client(store)
    found = mlflow.search_model_versions(f"name = '{name}'")
    version = next((one for one in found if one.tags.get("model_digest") == digest), None)
    if version is None or "question" in version.tags:
        return version
    for tag, value in asked.items():
        mlflow.set_model_version_tag(name, version.version, tag, value)
    return mlflow.get_model_version(name, version.version)


def new_version(store: BrainStore, name: str, run: Any, tags: Mapping[str, str], folder: str = HEAD_FOLDER) -> Any:
    """A version whose files lie in a folder of a training's run; its model is made on first use."""
    from mlflow.exceptions import MlflowException

    try:
        client(store).create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/{folder}"
    return client(store).create_model_version(name, source, run.info.run_id, tags=dict(tags))


def _training_run(
    store: BrainStore,
    brain_id: str,
    digest: str,
    card: HeadCard,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    held_out: Mapping[str, str],
    parent: Callable[[], str] | None,
) -> Any:
    """Make the run of a training, with the head among its files."""
    tags = {"brain": brain_id, "kind": "training", "model_digest": digest, **run_tags()}
    if parent is None:
        experiment = experiment_id(store, of_brains(card.target))
    else:  # MLflow shows a run below another of the same experiment
        tags["mlflow.parentRunId"] = parent()
        experiment = client(store).get_run(tags["mlflow.parentRunId"]).info.experiment_id
    tags["mlflow.note.content"] = _described(card)
    name = f"train-{card.target}-{card.kind}-{brain_id}"
    where = f"tags.kind = 'training' and tags.brain = '{brain_id}' and tags.model_digest = '{digest}'"
    known = search_rows(store, f"{where} and attributes.status = 'RUNNING'")
    # MLflow may have gone while it was told of this head before
    run = known[0] if known else client(store).create_run(experiment, run_name=name, tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, {"encoder": card.embedding.encoder, "kind": card.kind, **flat(params)})
    log_metrics(store, run_id, metrics)
    log_datasets(store, run_id, _datasets(card, brain_id, held_out))
    artifacts(store, str(run.info.artifact_uri)).log_artifacts(str(store.models.path(digest)), HEAD_FOLDER)
    return run


def _described(card: HeadCard) -> str:
    """A head in a sentence."""
    sections = sum(map(len, card.learned_from.values()))
    learned = f", learned from {sections} sections of {', '.join(card.brains[:12])}" if card.brains else ""
    return (
        f"Tells {len(card.classes)} {card.target} by a {card.kind} on embeddings of {card.embedding.encoder} at "
        f"{card.pixel_size_um:g} um per pixel{learned}. {card.scores_of}"
    ).strip()


def _datasets(card: HeadCard, trained_on: str, held_out: Mapping[str, str]) -> list[Dataset]:
    """The sections that a head learned from, by brain, and those that it was scored on, these with their labels."""
    found = [
        Dataset(f"labels of {brain}", _digest(sorted(sections)), "training", f"brains/{brain}")
        for brain, sections in card.learned_from.items()
    ]
    if held_out:
        found.append(Dataset(f"held-out labels of {trained_on}", _digest(dict(held_out)), "held_out", "brains"))
    return found


def _champion(store: BrainStore, name: str) -> Any:
    return _alias(store, name, CHAMPION)


def _alias(store: BrainStore, name: str, alias: str) -> Any:
    """The version that an alias names, or None: a server that does not answer has not said that there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client(store).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
