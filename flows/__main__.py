"""The terminal's door: every flow a user runs by hand, with the same settings as in the Prefect UI."""

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # said before the libraries are imported, since they look once: nothing is sent anywhere
    for name, value in (
        ("DO_NOT_TRACK", "true"),
        ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("PREFECT_LOGGING_LEVEL", "WARNING"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ):
        os.environ.setdefault(name, value)
    from flows.terminal import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
