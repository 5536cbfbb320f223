"""From a model directory to a Bento directory, and from a Bento to a running service. EDGE: BentoML.

Choices. `bentoml build` makes it, in a process of its own and from a folder that holds nothing but what serves (the
packages serving, models and features, the model and its settings; no training data, flows or tests), told the version:
the hash of that content. The one thing that it stamps besides, the time, is set to a fixed one, so the same input
gives the same bytes. `bentoml serve DIR` runs it as it is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from features.errors import ArtifactError, BusyError, UsageError
from serving import lifeline
from serving.params import SETTINGS_FILE, from_environment
from serving.requirements import serving_requirements

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("features", "models", "serving")
TYPES = frozenset({".py", ".html", ".css", ".js", ".gz", ".svg", ".yaml"})
NAMES = frozenset({"LICENSE", "NOTICE"})
START_S = 120.0
NAME, REQUIREMENTS = "homeranker", "requirements.txt"
BUILT_AT = "1970-01-01T00:00:00+00:00"


def _sources() -> Iterator[tuple[str, Path]]:
    """(path inside the Bento, file) of the code that serves, sorted."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and (path.suffix in TYPES or path.name in NAMES):
                yield path.relative_to(ROOT).as_posix(), path


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]


def build_bento(
    model_dir: Path | None, out: Path, *, version: str = "", settings: Mapping[str, Any] | None = None
) -> Path:
    """Build the Bento of a model at `out` (replaced whole) and return it.

    Without a model it serves what is put over HTTP, where --fallback allows it.
    `version` names the model in the Bento's labels; the Bento's own version is the hash of its content. The same
    input gives the same bytes. Raises ArtifactError where the model is missing or `bentoml build` fails.
    """
    if model_dir is not None and not (model_dir / "digest.json").is_file():
        raise ArtifactError(f"{model_dir}: no model to package (digest.json is missing); run `homeranker retrain`")
    files = {name: path.read_bytes() for name, path in _sources()}
    for path in sorted(model_dir.iterdir()) if model_dir is not None else ():
        if path.is_file():
            files[f"model/{path.name}"] = path.read_bytes()
    if settings:
        files[f"model/{SETTINGS_FILE}"] = json.dumps(settings, sort_keys=True, indent=1).encode()
    files[REQUIREMENTS] = ("\n".join(serving_requirements(ROOT / "requirements.lock")) + "\n").encode()
    files["bentofile.yaml"] = _bentofile(version)
    # Not below `out`: bentoml builds nothing in a hidden folder, and a run's worktree lies in .homeranker.
    with tempfile.TemporaryDirectory(prefix="bento-") as scratch:
        built = _bentoml_build(files, Path(scratch))
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(built, _made(out.parent) / out.name)
    out.chmod(0o755)
    return out


def _bentoml_build(files: Mapping[str, bytes], scratch: Path) -> Path:
    """Lay the files out, run `bentoml build` over them in a store of its own; the Bento's folder, without its time."""
    context, version = scratch / "context", _digest(files)
    for name, content in files.items():
        _made((context / name).parent)
        (context / name).write_bytes(content)
    words = [sys.executable, "-m", "bentoml", "build", "--version", version, "."]
    # The service is imported to be described: what this shell sets for a running one must not get into the Bento.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HOMERANKER_", "BENTOML_"))}
    told = clean | {"BENTOML_HOME": str(scratch), "BENTOML_DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=context, env=told, capture_output=True, text=True, check=False)
    built = scratch / "bentos" / NAME / version
    if done.returncode or not built.is_dir():
        raise ArtifactError(f"bentoml build failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    described = built / "bento.yaml"
    told_yaml = yaml.safe_load(described.read_text(encoding="utf-8")) | {"creation_time": BUILT_AT}
    described.write_text(yaml.safe_dump(told_yaml, sort_keys=True), encoding="utf-8")
    return built


def _bentofile(model_version: str) -> bytes:
    document = {
        "service": "serving.service:Homeranker",
        "name": NAME,
        "labels": {"model_version": model_version},
        "include": ["*"],
        "python": {"requirements_txt": REQUIREMENTS, "lock_packages": False},
        "docker": {"distro": "debian", "python_version": "3.11"},
    }
    return yaml.safe_dump(document, sort_keys=True).encode()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def command(bento: Path, host: str, port: int) -> list[str]:
    """The command that serves a Bento directory."""
    return [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", host, "--port", str(port)]


def environment(home: Path, *, workers: int = 1, fallback: bool = False, **more: str) -> dict[str, str]:
    """Variables of a serving process, which ends with this one."""
    variables = {
        **os.environ,
        "BENTOML_DO_NOT_TRACK": "1",
        "BENTOML_HOME": str(home / "bentoml"),
        # An empty value would have the counters written into the Bento itself.
        "PROMETHEUS_MULTIPROC_DIR": str(_made(home.resolve() / "prometheus")),
        "HOMERANKER_HOME": str(home),
        "HOMERANKER_WORKERS": str(workers),
        "HOMERANKER_FALLBACK": "1" if fallback else "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # what serves stays what was packaged, byte for byte
        **more,
    }
    lifeline.leave(variables)
    return variables


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """BusyError where the server could not listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the server does: connections of a service that has just stopped do not keep its port, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError as error:
            raise UsageError(f"--port {port}: ports go from 1 to 65535") from error
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            mend = "free it, or choose another one (--port, or HOMERANKER_PORT of an image)"
            raise BusyError(f"port {port} of {host} {why}: {mend}") from error


def serve(
    bento_or_model: Path, home: Path, host: str, port: int, workers: int = 1, fallback: bool = False,
    beginning: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Serve a Bento, or a model with this checkout's code, until SIGTERM or SIGINT; returns the exit status.

    `beginning` is called once nothing stands in the way. Without HOMERANKER_API_KEYS only 127.0.0.1 is served, whatever
    `host` says: UsageError. A port that cannot be listened on is a BusyError.
    """
    if not from_environment().keys and host not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"--host {host} needs keys: set HOMERANKER_API_KEYS, or serve on 127.0.0.1")
    host = "127.0.0.1" if host == "localhost" else host
    check_port(host, port)
    bento = bento_or_model
    if not (bento_or_model / "bento.yaml").is_file():
        bento = build_bento(bento_or_model, home / "bentos" / "served")
    beginning()
    process = subprocess.Popen(command(bento, host, port), env=environment(home, workers=workers, fallback=fallback))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    return process.wait()


@contextmanager
def served(
    bento: Path, home: Path, *, workers: int = 1, fallback: bool = False, ready: bool = True, **more: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Bento in a process of its own on a free port: (base URL, process); ended with SIGTERM.

    No balancer sends to it, so it does not wait for one when it ends, unless `more` says so.
    """
    port = free_port()
    _made(home)
    log = (home / "serve.log").open("ab")
    variables = environment(home, workers=workers, fallback=fallback, **{"HOMERANKER_DRAIN_SECONDS": "0", **more})
    process = subprocess.Popen(command(bento, "127.0.0.1", port), env=variables, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(base, process, "/readyz" if ready else "/livez")
        yield base, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def wait_for(base: str, process: subprocess.Popen[bytes], path: str) -> None:
    """Wait until the path answers 200; ArtifactError where the process ends or the time is up."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(base + path, timeout=2) as answer:  # noqa: S310 - our own http URL
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ArtifactError(f"the service did not answer {path} (exit status {process.poll()}); see serve.log in its home")


def ask(base: str, path: str, body: Any) -> dict[str, Any]:
    """POST JSON, get JSON."""
    key = (os.environ.get("HOMERANKER_API_KEYS") or "").replace(",", " ").split()
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key[0]}"} if key else {})}
    request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)  # noqa: S310 - our own URL
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own http URL
        found: dict[str, Any] = json.loads(answer.read())
        return found


def smoke(bento: Path, home: Path, users: Sequence[str]) -> dict[str, Any]:
    """Start the Bento, ask for a page for a stranger and for each user, stop it; ArtifactError where a page is bad."""
    started = time.monotonic()
    with served(bento, home) as (base, _):
        ready_s = time.monotonic() - started
        pages = {}
        for user in (None, *users):
            page = ask(base, "/v1/homepage", {"session_id": "smoke", "user_id": user})
            slots = [slot for module in page["modules"] for slot in module["slots"]]
            if not slots or page["fallback"] is not None:
                raise ArtifactError(
                    f"smoke: a page has {len(slots)} slots and fallback {page['fallback']}; see serve.log"
                )
            pages[user or "stranger"] = [slot["item_id"] for slot in slots]
    return {"ready_s": round(ready_s, 2), "model_version": page["model_version"], "pages": pages}
