"""How many small faults, planted one by one in a room, its tests find: `python -m tests.mutants ROOM...`.

mutmut makes the mutants, finds out which tests reach them, and runs those in forked processes. This driver gives it a
copy of the checkout to work in, the tests that answer for a room, and a seeded sample, and prints what survived.
What is known of the same code from an earlier run is kept: after new tests only those that survived are run again.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from filecmp import cmp
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIES = ROOT / "work" / "mutants"
FOUND, UNKNOWN = ("killed", "timeout", "segfault"), "not checked"

ROOMS: dict[str, tuple[str, ...]] = {
    "learning": ("tests/cytoarch/learning",),
    "parcellation": ("tests/cytoarch/parcellation",),
    "discovery": ("tests/cytoarch/discovery",),
    "steps": ("tests/cytoarch/steps",),
    "reporting": ("tests/cytoarch/reporting", "tests/cytoarch/steps/test_pages.py"),
    "measures": ("tests/cytoarch/measures",),
}
"""The tests that answer for a room. Its doctests do not: they stand in every mutant's copy of their function."""


def copied(room: str) -> tuple[Path, bool]:
    """A copy of what git would commit, and whether code is new in it.

    It lies in a folder that keeps what mutmut found out about the same files before.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    copy, is_new = COPIES / room, False
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if not (copy / name).exists() or not cmp(ROOT / name, copy / name, shallow=False):
            shutil.copyfile(ROOT / name, copy / name)
            is_new |= name.endswith(".py")
    for path in [path for folder in (copy, copy / "mutants") for path in folder.glob("tests/**/test_*.py")]:
        if str(path.relative_to(copy)).removeprefix("mutants/") not in names:
            path.unlink()
            is_new = True
    return copy, is_new


def run(room: str, count: int, seed: int, workers: int, seconds: float) -> dict[str, str]:
    """Test a sample of the mutants of a room: mutant -> what became of it. The working folder is a copy."""
    began = time.monotonic()
    copy, is_new = copied(room)
    os.chdir(copy)
    sys.modules.pop("tests", None)  # that of the checkout: the copy has its own
    sys.path[:] = [one for one in sys.path if Path(one).resolve() != ROOT]
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path.cwd() / "mutants" / part) for part in ("src", ""))
    from mutmut import __main__ as mutmut
    from mutmut.configuration import config
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.format_utils import mangled_name_from_mutant_name
    from mutmut.workers.isolation import get_mutant_runner

    config().only_mutate = [f"src/cytoarch/{room}/*"]
    config().pytest_add_cli_args_test_selection = list(ROOMS[room])
    Path("mutants").mkdir(exist_ok=True)
    mutmut.set_mutant_under_test("mutant_generation")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: PTH123 - it is no file
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(workers)
    runner = get_mutant_runner(workers)
    if is_new or not mutmut.load_stats():
        mutmut.collect_or_load_stats(runner)  # all tests pass, and which functions does each of them reach?
    mutmut.set_mutant_under_test("")
    known, _ = mutmut.collect_source_file_mutation_data(mutant_names=())
    places = {name: place for place, name, _ in known}

    def verdict(name: str) -> str:
        return str(status_by_exit_code[places[name].exit_code_by_key[name]])

    sample = sorted(places)
    random.Random(seed).shuffle(sample)  # noqa: S311 - a larger sample begins with the smaller one
    print(f"{room}: {min(count, len(sample))} of {len(sample)} mutants, seed {seed}")
    del sample[count:]
    asked = [name for name in sample if verdict(name) not in FOUND]
    duration, reached = mutmut.state().duration_by_test, mutmut.state().tests_by_mangled_function_name
    runner.startup()
    for name in asked:
        if time.monotonic() - began > seconds:
            break
        tests = sorted(reached.get(mangled_name_from_mutant_name(name), ()), key=lambda one: duration[one])
        expected_s = sum(duration[one] for one in tests)
        limit_s = ceil(2 * config().timeout_multiplier * (expected_s + config().timeout_constant))
        while not runner.has_capacity():
            mutmut._register_mutant_result(runner.wait_for_result(), places)
        runner.submit(name, tests, limit_s, expected_s)
    runner.signal_work_complete()
    while runner.pending_count():
        mutmut._register_mutant_result(runner.wait_for_result(), places)
    runner.shutdown()
    return {name: verdict(name) for name in sample}


def report(room: str, outcome: dict[str, str]) -> None:
    """Print the score and what survived."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    for name, became in sorted(outcome.items()):
        if became not in (*FOUND, UNKNOWN):
            print(f"\n# {became}: {name}\n{get_diff_for_mutant(name)}")
    counts = Counter(outcome.values())
    found, tried = sum(counts[one] for one in FOUND), len(outcome) - counts[UNKNOWN]
    print(f"{room}: {found} of {tried} found ({100 * found / max(1, tried):.1f} %): {dict(counts)}")
    Path("outcome.json").write_text(json.dumps(outcome, indent=1))


def main() -> None:
    """One process a room: mutmut keeps what it knows in globals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help=f"of {', '.join(ROOMS)}; all by default")
    parser.add_argument("--count", type=int, default=40, help="mutants a room")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no mutant after so long, in a room")
    parser.add_argument("--fresh", action="store_true", help="forget what is known from earlier runs")
    asked = parser.parse_args()
    if set(asked.rooms) - set(ROOMS):
        parser.error(f"the rooms are {', '.join(ROOMS)}")
    if len(asked.rooms) == 1:
        (room,) = asked.rooms
        if asked.fresh:
            shutil.rmtree(COPIES / room, ignore_errors=True)
        report(room, run(room, asked.count, asked.seed, asked.workers, asked.seconds))
        return
    flags = [f"--{name}={getattr(asked, name)}" for name in ("count", "seed", "workers", "seconds")]
    flags += ["--fresh"] if asked.fresh else []
    for room in asked.rooms or ROOMS:
        subprocess.run([sys.executable, "-m", "tests.mutants", room, *flags], check=True)


if __name__ == "__main__":
    main()
