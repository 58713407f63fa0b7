"""Which tests go to one worker: those of a module, and those of modules that name the same `xdist_group`.

So what a module or a group shares is made once a run. Groups go first, since they take longest. pytest-xdist's own
groups are not heard by pytest 9.2 (https://github.com/pytest-dev/pytest-xdist/issues/1386), and it would deal the tests
of a module without a group to whoever is free.
"""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent


@cache
def group(module: str) -> str | None:
    """The `xdist_group` that a module (path from the root) names, if any.

    It is read from the text: the process that deals out tests imports none of them.
    """
    named = set(re.findall(r'\bxdist_group\("([^"]+)"\)', (ROOT / module).read_text(encoding="utf-8")))
    if len(named) > 1:
        raise ValueError(
            f"{module} names {len(named)} groups ({', '.join(sorted(named))}); a module goes to one worker"
        )
    return named.pop() if named else None


def module_of(nodeid: str) -> str:
    """Path of the file that a test stands in.

    >>> module_of("tests/a/test_b.py::test_c[x::y]")
    'tests/a/test_b.py'
    """
    return nodeid.partition("::")[0]


class TogetherScheduling(LoadScopeScheduling):
    """Deals out groups and modules as wholes, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        module = module_of(nodeid)
        return group(module) or module
