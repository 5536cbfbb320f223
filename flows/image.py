"""An OCI image of a run's service without Docker: Python, what serving imports, the shared libraries, the Bento.

Choices. Two layers: the runtime, which is the same for every run of one lock file, and the Bento. Both are tar archives
written here with sorted names, owner 0 and time 0, so that the same run gives the same digest; `umoci` makes the image
of them. Nothing of training is inside, no compiler and no shell; the process is uid 10001 and writes below /state and
/tmp only. Bytecode is made at the first start, in /tmp, because compiled files would differ from machine to machine.
Source: OCI image specification 1.0; CycloneDX 1.6 for the bill of materials.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from features.errors import ArtifactError, HomerankerError, UsageError
from flows.paths import REPOSITORY
from flows.registry import Registry
from serving.requirements import serving_requirements

EPOCH = "1970-01-01T00:00:00Z"
UID = 10001
PREFIX, BENTO, STATE = "opt/python", "bento", "state"
SITE = f"{PREFIX}/lib/python3.11/site-packages"
LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|config-3\.11[^/]*)(/|$)|^test/"
    r"|/(_tkinter|_curses|readline|nis|_test|_ctypes_test|xxlimited)[^/]*\.so$"
)
PACKAGE_LEFT_OUT = re.compile(
    r"__pycache__|\.pyc$|\.(a|h|hpp|cuh)$|^torch/(include/|test/|share/|bin/(?!torch_shm_manager))|^\.\./|(^|/)tests?/"
)
LIBRARY = re.compile(r"=> (/\S+)|^\s+(/\S*ld-linux\S*)", re.M)
ENTRY = [f"/{PREFIX}/bin/python3.11", "-m", "serving", f"/{BENTO}"]
ENVIRONMENT = {
    "PYTHONPATH": f"/{BENTO}/src",
    "PYTHONPYCACHEPREFIX": "/tmp/pycache",  # noqa: S108 - inside the image
    "PYTHONUNBUFFERED": "1",
    "HOMERANKER_HOME": f"/{STATE}",
    "BENTOML_DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
}


class Layer:
    """A tar archive that depends on names and contents alone."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `close`
        self._folders: set[str] = set()

    def add(self, name: str, source: Path) -> None:
        """One file, with its folders."""
        self._parents(name)
        told = tarfile.TarInfo(name)
        told.size, told.mode = source.stat().st_size, 0o755 if source.stat().st_mode & 0o100 else 0o644
        with source.open("rb") as file:
            self._tar.addfile(told, file)

    def text(self, name: str, content: str) -> None:
        """One small file."""
        self._parents(name)
        told = tarfile.TarInfo(name)
        told.size, told.mode = len(content.encode()), 0o644
        self._tar.addfile(told, io.BytesIO(content.encode()))

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        """An empty folder."""
        self._parents(name)
        told = tarfile.TarInfo(name)
        told.type, told.mode, told.uid, told.gid = tarfile.DIRTYPE, mode, owner, owner
        self._tar.addfile(told)
        self._folders.add(name)

    def _parents(self, name: str) -> None:
        parents = [str(parent) for parent in Path(name).parents][::-1][1:]
        for parent in parents:
            if parent not in self._folders:
                told = tarfile.TarInfo(parent)
                told.type, told.mode = tarfile.DIRTYPE, 0o755
                self._tar.addfile(told)
                self._folders.add(parent)

    def close(self) -> None:
        """Write the end."""
        self._tar.close()


def _standard_library() -> Iterator[tuple[str, Path]]:
    base = Path(sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_prefix})["stdlib"])
    for path in sorted(base.rglob("*")):
        name = path.relative_to(base).as_posix()
        if path.is_file() and not LEFT_OUT.search(name):
            yield f"{PREFIX}/lib/python3.11/{name}", path
    yield f"{PREFIX}/bin/python3.11", Path(sys.executable).resolve()


def _packages(names: list[str]) -> Iterator[tuple[str, Path]]:
    for name in names:
        for file in sorted(distribution(name).files or (), key=str):
            source = Path(str(file.locate()))
            if not PACKAGE_LEFT_OUT.search(file.as_posix()) and source.is_file():
                yield f"{SITE}/{file.as_posix()}", source


def _system_libraries(files: dict[str, Path]) -> dict[str, Path]:
    """What the loader would look for outside of the image's own files: path in the image -> file."""
    inside = {path.resolve() for path in files.values()}
    binaries = [path for name, path in sorted(files.items()) if ".so" in name or "/bin/" in name]
    asked = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    wanted = {Path(pair[0] or pair[1]) for pair in LIBRARY.findall(asked.stdout)}
    found: dict[str, Path] = {}
    for path in sorted(wanted):
        real = path.resolve()
        if real not in inside and real.exists() and "site-packages" not in real.parts:
            # One folder that the loader always searches, wherever this machine keeps the file.
            name = str(path).lstrip("/") if "ld-linux" in path.name else f"lib/x86_64-linux-gnu/{path.name}"
            found[name] = real
    return found


def _runtime_layer(path: Path, names: list[str]) -> None:
    files = dict(_standard_library()) | dict(_packages(names))
    files |= _system_libraries(files)
    layer = Layer(path)
    for name in sorted(files):
        layer.add(name, files[name])
    layer.text("etc/passwd", f"root:x:0:0:root:/:/nologin\nhomeranker:x:{UID}:{UID}:homeranker:/{STATE}:/nologin\n")
    layer.text("etc/group", f"root:x:0:\nhomeranker:x:{UID}:\n")
    layer.text("etc/nsswitch.conf", "hosts: files dns\n")
    layer.folder("tmp", 0o1777)
    layer.folder(STATE, 0o750, UID)
    for name in ("proc", "sys", "dev"):
        layer.folder(name)
    layer.close()


def _bento_layer(path: Path, bento: Path, materials: str) -> None:
    layer = Layer(path)
    for source in sorted(one for one in bento.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
        layer.add(f"{BENTO}/{source.relative_to(bento).as_posix()}", source)
    layer.text("sbom.cdx.json", materials)
    layer.close()


def bill_of_materials(pins: list[str], manifest: dict[str, Any]) -> str:
    """CycloneDX JSON of what is inside: the Bento, Python and every pinned package; the same run, the same text."""
    from uuid import NAMESPACE_URL, uuid5

    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    warnings.filterwarnings("ignore", message="The Component this BOM is describing")
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"homeranker:{manifest['hash']}"))
    name, _, version = manifest["content"]["bento"].partition(":")
    bom.metadata.component = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name)
    python = ".".join(map(str, sys.version_info[:3]))
    for one, pinned in [("python", python), *(line.split("==") for line in pins)]:
        url = PackageURL("generic" if one == "python" else "pypi", name=one, version=pinned)
        kind = ComponentType.PLATFORM if one == "python" else ComponentType.LIBRARY
        bom.components.add(Component(name=one, version=pinned, type=kind, purl=url, bom_ref=str(url)))
    told = json.loads(JsonV1Dot6(bom).output_as_string())
    told["metadata"]["timestamp"] = EPOCH
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def build_image(registry: Registry, run: str, out: Path) -> dict[str, Any]:
    """Write the image of a run to `out` (a tar of an OCI layout, tag `champion`), its SBOM beside it; what it is.

    Raises ArtifactError where the run's files changed, HomerankerError where `umoci` is missing or fails.
    """
    if shutil.which("umoci") is None:
        raise HomerankerError("umoci is not installed: apt-get install umoci (it makes OCI images without Docker)")
    if out.is_dir():
        raise UsageError(f"{out}: a folder; --out names the file to write")
    run_dir = registry.run_dir(run)
    wrong = [line for line in registry.verify(run_dir.name) if line.startswith(("bento/", "manifest"))]
    if wrong:
        raise ArtifactError(f"run {run_dir.name} is not as it was written: {'; '.join(wrong[:5])}")
    pins = serving_requirements(REPOSITORY / "requirements.lock")
    materials = bill_of_materials(pins, registry.manifest(run_dir.name))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="image-", dir=out.parent) as scratch:
        place = Path(scratch)
        layout, fresh = place / "layout", place / "whole"
        _runtime_layer(place / "runtime.tar", [line.split("==")[0] for line in pins])
        _bento_layer(place / "bento.tar", run_dir / "bento", materials)
        _assemble(layout, [place / "runtime.tar", place / "bento.tar"], run_dir.name)
        whole = Layer(fresh)
        for path in sorted(one for one in layout.rglob("*") if one.is_file()):
            whole.add(path.relative_to(layout).as_posix(), path)
        whole.close()
        digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        fresh.replace(out)
    sbom = out.with_name(out.name + ".cdx.json")
    sbom.write_text(materials)
    return {"run": run_dir.name, "image": str(out), "digest": digest, "sbom": str(sbom), "packages": len(pins)}


def _assemble(layout: Path, layers: list[Path], run: str) -> None:
    image = f"{layout}:champion"
    stamp = ["--history.created", EPOCH, "--history.author", "homeranker"]
    _umoci("init", "--layout", str(layout))
    _umoci("new", "--image", image)
    for layer in layers:
        _umoci("raw", "add-layer", "--image", image, *stamp, "--history.created_by", layer.stem, str(layer))
        layer.unlink()
    words = [f"--config.entrypoint={word}" for word in ENTRY]
    words += [f"--config.env={name}={value}" for name, value in ENVIRONMENT.items()]
    words += ["--config.user", f"{UID}:{UID}", "--config.exposedports", "3000/tcp", "--config.workingdir", f"/{STATE}"]
    words += ["--config.stopsignal", "SIGTERM", "--config.label", f"homeranker.run={run}", "--created", EPOCH]
    words += ["--author", "homeranker", "--architecture", "amd64", "--os", "linux"]
    _umoci("config", "--image", image, *words, *stamp, "--history.created_by", "homeranker image")
    _umoci("gc", "--layout", str(layout))


def _umoci(*words: str) -> None:
    done = subprocess.run(["umoci", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HomerankerError(f"umoci {words[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
