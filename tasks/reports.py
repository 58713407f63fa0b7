"""Where the reports of a store are served, if they are: an address on loopback that holds a secret."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cytoarch.errors import StoreError

REPORTS_URL = "CYTOARCH_REPORTS_URL"
"""Variable with the address of the server of reports, without the secret, which lies in the store."""
REPORTS_STORE = "CYTOARCH_REPORTS_STORE"
"""Variable with the folder of the store whose reports these are."""
_FILE = ".reports-token"


def reports_token(store_path: Path) -> str:
    """The secret part of the address of a store's reports, made once: links of earlier days go on working."""
    path = store_path / _FILE
    store_path.mkdir(parents=True, exist_ok=True)
    return made_once(path, secrets.token_urlsafe(18), 0o600)


def made_once(path: Path, text: str, mode: int) -> str:
    """What a file says that is written once, whole, by whoever comes first. Raises StoreError if it says nothing."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    found = path.read_text(encoding="utf-8").strip()
    if not found:
        raise StoreError(f"{path} is empty; remove it, then start again")
    return found


def reports_address(base: str, store_path: Path) -> str:
    """The address below which the server at `base` shows a store's reports."""
    return f"{base}/{reports_token(store_path)}"


def report_url(store_path: Path, brain_id: str, key: str = "report/index.html") -> str:
    """The address of a brain's report, or of another page or picture; blank: this store's reports are not served."""
    base, store = os.environ.get(REPORTS_URL, ""), os.environ.get(REPORTS_STORE, "")
    if not base or store_path.resolve() != Path(store).resolve():
        return ""
    return f"{reports_address(base, store_path)}/{brain_id}/{key}"
