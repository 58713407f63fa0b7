"""Which tests go to one worker: those of a module, and those of modules that name the same `xdist_group`.

So what a module or a group shares is made once a run. pytest-xdist's own groups are not heard by pytest 9.2
(https://github.com/pytest-dev/pytest-xdist/issues/1386), and it would deal the tests of a module without a group to
whoever is free.
"""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling


@cache
def group(path: Path) -> str | None:
    """The `xdist_group` that a module names, if any.

    It is read from the text: the process that deals out tests imports none of them. Raises ValueError for two names.
    """
    named = sorted(set(re.findall(r'\bxdist_group\("([^"]+)"\)', path.read_text(encoding="utf-8"))))
    if len(named) > 1:
        raise ValueError(f"{path} names {len(named)} groups ({', '.join(named)}); a module goes to one worker")
    return named[0] if named else None


class TogetherScheduling(LoadScopeScheduling):
    """Deals out groups and modules as wholes, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return group(self.config.rootpath / module) or module
