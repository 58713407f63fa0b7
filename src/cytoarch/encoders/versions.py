"""Which releases of the libraries that compute an encoder's output are installed: they decide it as its weights do."""

from functools import cache
from importlib.metadata import version


@cache
def release(package: str) -> str:
    """The release of an installed package, without what tells its builds apart: 2.9.1 for 2.9.1+cu130."""
    return version(package).partition("+")[0]


def releases(*packages: str) -> dict[str, str]:
    """Package -> release, to be part of a digest."""
    return {package: release(package) for package in packages}
