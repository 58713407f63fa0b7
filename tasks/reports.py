"""Where the reports of a store are served, if they are: an address on loopback that holds a secret."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

REPORTS_URL = "CYTOARCH_REPORTS_URL"
"""Variable with the address below which the reports are served."""
REPORTS_STORE = "CYTOARCH_REPORTS_STORE"
"""Variable with the folder of the store whose reports these are."""
_FILE = ".reports-token"


def reports_token(store_path: Path) -> str:
    """The secret part of the address of a store's reports, made once: links of earlier days go on working."""
    path = store_path / _FILE
    store_path.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with (
            suppress(FileExistsError),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file,
        ):
            file.write(secrets.token_urlsafe(18))
    return path.read_text(encoding="utf-8").strip()


def report_url(store_path: Path, brain_id: str) -> str:
    """The address of a brain's report; blank: this store's reports are not served."""
    base, store = os.environ.get(REPORTS_URL, ""), os.environ.get(REPORTS_STORE, "")
    if not base or store_path.resolve() != Path(store).resolve():
        return ""
    return f"{base}/{brain_id}/report/index.html"
