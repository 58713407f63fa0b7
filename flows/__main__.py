"""The terminal's door: every flow a user runs by hand, with the same settings as in the Prefect UI."""

import os
import sys

from flows.serving import START_LIMIT, direct_loopback, running_servers, unusable_proxies
from flows.waiting import absent, busy, misstated

DEFAULTS = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the terminal says once, and shorter, what went wrong
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    START_LIMIT: "600",  # the database is made at the first start; Prefect's 20 s are few on a busy machine
}
"""Where the environment does not say otherwise."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    asks = {"-h", "--help", "--version"}.intersection(sys.argv[1:])  # what it is, not that it is done
    looks = () if asks else (absent, busy, misstated)
    reason = next(filter(None, (look(sys.argv[1:]) for look in looks)), None)
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    # said before the libraries are imported, since they look once
    os.environ.update(direct_loopback(os.environ))
    for name in unusable_proxies(os.environ):
        print(f"note: the proxy in {name} is of a kind that Prefect cannot use; it is left aside", file=sys.stderr)
        del os.environ[name]
    for name, value in {**DEFAULTS, **running_servers()}.items():
        os.environ.setdefault(name, value)
    if sys.stderr.isatty() and sys.argv[1:] and not asks:
        print("starting: the libraries take some seconds to load", file=sys.stderr)
    from flows.terminal import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
