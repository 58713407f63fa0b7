"""Where things lie unless something else is said."""

from pathlib import Path

DEFAULT_STORE = Path("work/store")
DEFAULT_EXPORTS = Path("work/exports")
