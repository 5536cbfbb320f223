"""Which model should serve: the one that the registry names, else the one in the Bento.

The registry is one small file, replaced whole by a promotion: {"version", "model_dir"}; a folder that is not absolute
lies below HOMERANKER_HOME.
"""

from __future__ import annotations

import json
from pathlib import Path

from features.errors import ArtifactError

CHAMPION = Path("registry") / "champion"
BUNDLED = "bundled"


def wanted(home: Path, bundled: Path | None) -> tuple[Path | None, str]:
    """The registered champion's folder and name, else the bundled model's; ArtifactError where the file is broken."""
    path = home / CHAMPION
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return home / Path(told["model_dir"]), str(told["version"])
    except FileNotFoundError:
        return bundled, BUNDLED
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no champion can be read from it: {error!r}") from error
