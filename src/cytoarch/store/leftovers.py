"""What of a store nothing speaks of any more: unfinished work, products without records, models that nobody uses."""

import re
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from cytoarch.paths import is_litter
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import DERIVED, WHOLE_BRAIN

Kind = Literal["unfinished", "unrecorded", "model"]
WHY: dict[Kind, str] = {
    "unfinished": "begun by a run that stopped; the next run of the same settings would go on with it",
    "unrecorded": "no record speaks of it",
    "model": "no product, report or registered version was made with it",
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DERIVED = DERIVED.split("/", maxsplit=1)[0]


class Leftover(NamedTuple):
    """Something that can be removed."""

    kind: Kind
    owner: str
    """The brain or study, or blank for models."""
    path: Path
    nbytes: int
    age_s: float
    """Since anything in it was written."""


def leftovers(store: BrainStore, older_than_s: float, registered: Collection[str]) -> list[Leftover]:
    """What can be removed of a store, the largest first.

    Args:
        store: The store.
        older_than_s: What was written to more recently is left: it may be at work.
        registered: The digests of models that the registry names; they are kept.

    """
    homes = [*(("brain", one) for one in store.brain_ids()), *(("study", one) for one in _studies(store))]
    found = [one for kind, name in homes for one in _of_home(_catalogue(store, kind, name), name)]
    used = set(registered).union(*(_digests(_catalogue(store, kind, name)) for kind, name in homes))
    found += [_leftover("model", "", path) for path in _models(store) if path.name not in used]
    return sorted((one for one in found if one.age_s >= older_than_s), key=lambda one: -one.nbytes)


def remove(store: BrainStore, leftover: Leftover) -> None:
    """Remove it, unless something speaks of it by now. Raises BrainBusyError if a run has its brain, or any brain."""
    if not leftover.owner:
        for brain_id in store.brain_ids():  # a run at work may have chosen the model
            store.check_free(brain_id)
        shutil.rmtree(leftover.path)
        return
    is_brain = leftover.owner in store.brain_ids() and store.brain_path(leftover.owner) in leftover.path.parents
    with store.lock_existing(leftover.owner) if is_brain else store.lock_study(leftover.owner):
        if leftover.path.exists() and not (leftover.kind == "unrecorded" and _record_of(leftover.path).exists()):
            shutil.rmtree(leftover.path)


def _record_of(product: Path) -> Path:
    """The record that would speak of a product, from the folder of the product."""
    step, name, section_id = product.parts[-3:]
    return product.parents[3] / "records" / step / name / f"{section_id}.json"


def _of_home(catalogue: Catalogue, owner: str) -> Iterator[Leftover]:
    for path in sorted((catalogue.folder / "staging").glob("*/")):
        yield _leftover("unfinished", owner, path)
    for path in sorted((catalogue.folder / _DERIVED).glob("*/*/*/")):
        if not _record_of(path).exists() and (path.name == WHOLE_BRAIN or not is_litter(path.name)):
            yield _leftover("unrecorded", owner, path)


def _digests(catalogue: Catalogue) -> set[str]:
    """Every digest that a record of a brain or study names."""
    return {digest for path in catalogue.record_paths() for digest in _DIGEST.findall(path.read_text(errors="replace"))}


def _models(store: BrainStore) -> list[Path]:
    folder = store.models.folder
    if not folder.is_dir():
        return []
    ours = (path for path in folder.iterdir() if _DIGEST.fullmatch(path.name.removesuffix(".draft")))
    return sorted(path for path in ours if path.is_dir())  # what else lies there is somebody's


def _studies(store: BrainStore) -> list[str]:
    folder = store.root / "studies"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _catalogue(store: BrainStore, kind: str, name: str) -> Catalogue:
    return store.catalogue(name) if kind == "brain" else Catalogue(store.study_path(name))


def _leftover(kind: Kind, owner: str, path: Path) -> Leftover:
    try:
        files = [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
        stats = [one.stat() for one in files]
        newest = max((one.st_mtime for one in stats), default=path.stat().st_mtime)
    except OSError:  # a run is at work in it
        return Leftover(kind, owner, path, 0, 0.0)
    return Leftover(kind, owner, path, sum(one.st_size for one in stats), time.time() - newest)
