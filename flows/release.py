"""May this run be shipped? Everything that a deployer can check offline, in one list.

Choices. Nothing here trusts the machine that made the run: hashes are computed again, the approval is checked against
public keys that the deployer brings, the model answers its golden requests in this Python, and an image is opened and
compared with the run's Bento. One line a check; a release stands only where every one holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from features.errors import HomerankerError
from flows import approval, signing
from flows.doctor import look
from flows.registry import Registry

Line = dict[str, Any]


def verify_release(
    registry: Registry, run: str, keys: Path | None = None, image: Path | None = None, approval_required: bool = True
) -> list[Line]:
    """All checks of a run: what, ok, says. `keys`: folder of trusted public keys; `image`: the file to ship."""
    run = registry.run_dir(run).name
    lines = [
        _line("every file has the hash that was written", lambda: _hashes(registry, run)),
        _line("the gate passed it", lambda: _gate(registry, run)),
        _line("a person approved it", lambda: _approved(registry, run, keys, approval_required)),
        _line("the model loads and answers its golden requests", lambda: _golden(registry, run)),
        _line("installed versions are not below the safe ones", lambda: _versions(registry)),
    ]
    if image is not None:
        lines.append(_line("the image holds this run's Bento", lambda: _image(registry, run, image)))
    return lines


def _line(what: str, check: Callable[[], str]) -> Line:
    try:
        return {"what": what, "ok": True, "says": check()}
    except (HomerankerError, OSError, ValueError, KeyError) as error:
        return {"what": what, "ok": False, "says": str(error)}


def _hashes(registry: Registry, run: str) -> str:
    approval.check_bytes(registry, run)
    return "manifest " + str(registry.manifest(run)["hash"])[:16]


def _gate(registry: Registry, run: str) -> str:
    verdict = registry.manifest(run)["content"]["verdict"]
    if verdict == "pass":
        return "pass"
    overridden = [line for line in registry.lines() if line["kind"] == approval.OVERRIDE and line["run"] == run]
    if not overridden:
        raise HomerankerError(f"the gate said {verdict!r}")
    return f"{verdict!r}, overridden by {overridden[-1]['by']}: {overridden[-1]['why']}"


def _approved(registry: Registry, run: str, keys: Path | None, required: bool) -> str:
    mine = [line for line in registry.lines() if line["kind"] == approval.DECISION and line["run"] == run]
    if not mine:
        if required or keys is not None:
            raise HomerankerError(f"nobody decided: homeranker approve {run} --by NAME --why TEXT")
        return "not required (run.approval in params.yaml)"
    newest = mine[-1]
    reason = approval.void(newest, registry.run_dir(run), signing.load_trusted(keys) if keys is not None else None)
    if reason:
        raise HomerankerError(reason)
    if newest["decision"] != approval.APPROVED:
        raise HomerankerError(f"{newest['by']} rejected it: {newest['why']}")
    signed = f", signed with key {newest['key_id']}" if "key_id" in newest else ", not signed"
    return f"by {newest['by']}: {newest['why']}{signed}"


def _golden(registry: Registry, run: str) -> str:
    from models.homepage import HomepageModel

    return f"model {HomepageModel.load(registry.run_dir(run) / 'model').version}"


def _versions(registry: Registry) -> str:
    bad = [line for line in look(registry.home) if not line["ok"] and line["kind"] == "version"]
    if bad:
        raise HomerankerError("; ".join(f"{line['what']} {line['found']}: {line['cure']}" for line in bad))
    return "all safe"


def _image(registry: Registry, run: str, image: Path) -> str:
    """Open the layers of an OCI archive and compare every file below /bento with the run's."""
    bento = registry.run_dir(run) / "bento"
    expected = {
        path.relative_to(bento).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bento.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with tarfile.open(image) as outer:
        index = _json(outer, "index.json")
        digest = index["manifests"][0]["digest"]
        manifest = _json(outer, _blob(digest))
        last = outer.extractfile(_blob(manifest["layers"][-1]["digest"]))
        if last is None:
            raise HomerankerError(f"{image}: its last layer is missing")
        with tarfile.open(fileobj=io.BytesIO(last.read()), mode="r:gz") as layer:
            found = {
                one.name.removeprefix("bento/"): hashlib.sha256(_read(layer, one)).hexdigest()
                for one in layer
                if one.isfile() and one.name.startswith("bento/")
            }
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise HomerankerError(f"{image}: {len(wrong)} files differ from the run's Bento: {', '.join(wrong[:3])}")
    return f"{len(found)} files, image {digest}"


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    if file is None:
        raise HomerankerError(f"{name} is missing: no OCI image")
    return json.loads(file.read())


def _read(archive: tarfile.TarFile, one: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(one)
    return b"" if file is None else file.read()
