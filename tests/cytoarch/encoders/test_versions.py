"""The releases of libraries that mark what encoders compute."""

from importlib import metadata

import pytest
import torch
import transformers

from cytoarch.encoders import versions


def test_a_release_is_what_the_package_says_of_itself_whatever_it_was_built_for():
    assert versions.releases("transformers", "torch") == {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }


@pytest.mark.parametrize("build", ["2.9.1", "2.9.1+cpu", "2.9.1+cu130"])
def test_builds_of_a_release_are_one(monkeypatch: pytest.MonkeyPatch, build: str):
    versions.release.cache_clear()
    monkeypatch.setattr(versions, "version", lambda _: build)
    assert versions.release("torch") == "2.9.1"
    versions.release.cache_clear()


def test_a_package_that_is_not_there_is_no_release():
    with pytest.raises(metadata.PackageNotFoundError):
        versions.releases("no-such-package")
