"""Collect the wheels that a machine without a network lacks: cvxfold's requirements, and its peers."""

import argparse
import csv
import fnmatch
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from email.parser import Parser
from importlib.metadata import requires
from pathlib import Path
from typing import Any

PEERS = ("qpth", "qpax", "pinet-hcnn", "moreau", "moreau-cuda13")
"""Of the benchmark, the most useful first."""

NOT_NEEDED = {"scs": ("scs/_scs_mkl*",), "moreau-cuda13": ("moreau_cuda/lib_moreau_jax_ffi*",)}
"""Large parts of wheels that nothing here calls, left out of the copies."""

_NEEDS = {"qpth": [], "pinet-hcnn": ["beartype", "equinox", "jax", "jaxtyping"]}
"""What a package needs here, where it asks for more."""

_FROM_SOURCE = frozenset({"qpth"})  # pure Python, of which the index has an ancient wheel alone
_GLIBC = (39, 38, 35, 34, 31, 28, 27, 24, 17, 12, 5)  # pip takes each by its number
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("folder", type=Path, help="where the wheels go; those that are there stay")
    parser.add_argument(
        "--there",
        type=Path,
        help="names of the packages that the machine has, one a line, such as pip freeze prints",
    )
    parser.add_argument("--python", default="3.12", help="the machine's Python (3.12), on Linux on x86-64")
    parser.add_argument("--most", type=float, default=50.0, help="megabytes in all (50)")


def run(given: argparse.Namespace) -> None:
    """Collect, and print what there is, what is left out and what is not met."""
    there = _names(given.there.read_text(encoding="utf-8")) if given.there else {}
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        collection = Collection(given.python, there, Path(scratch))
        for root in [*_own_requirements(given.python), *PEERS]:
            collection.add(root, int(given.most * 1e6))
        for wheel in collection.wheels.values():
            wheel.path = Path(shutil.copy(wheel.path, given.folder))
    total = 0
    for wheel in sorted(collection.wheels.values(), key=lambda one: -one.size):
        print(f"{wheel.size / 1e6:8.2f} MB  {wheel.path.name}")
        total += wheel.size
    print(f"{total / 1e6:8.2f} MB  in all, in {given.folder}")
    for line in [*collection.left_out, *collection.unmet()]:
        print(line)


@dataclass
class Wheel:
    """A wheel that was fetched: what it is and what it asks for.

    Args:
        name: normalized. version, size: of the file. path: of it. needs: requirements that hold here.
    """

    name: str
    version: str
    path: Path
    needs: list[Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


@dataclass
class Collection:
    """Wheels for one machine.

    Args:
        python: its version, such as 3.12. there: names of packages it has, with versions or None.
        scratch: a folder for downloads.
    """

    python: str
    there: dict[str, str | None]
    scratch: Path
    wheels: dict[str, Wheel] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, root: str, most: int) -> None:
        """Add what is asked and all that it needs where that fits in so many bytes; or say why not."""
        found: dict[str, Wheel] = {}
        try:
            self._follow(_requirement(root), found)
        except LookupError as error:
            self.left_out.append(f"left out: {root}: {error}")
            return
        more, have = (sum(one.size for one in some.values()) for some in (found, self.wheels))
        if more + have > most:
            self.left_out.append(
                f"left out: {root}: {more / 1e6:.1f} MB more ("
                + ", ".join(f"{one.path.name.split('-')[0]} {one.size / 1e6:.1f}" for one in found.values())
                + f") on {have / 1e6:.1f} MB"
            )
            return
        self.wheels |= found

    def unmet(self) -> list[str]:
        """A line for each requirement that neither the collection nor the machine meets in its version."""
        have = {name: version for name, version in self.there.items() if version is not None}
        have |= {name: wheel.version for name, wheel in self.wheels.items()}
        return [
            f"not met: {wheel.name} asks for {need}, there is {have[name]}"
            for wheel in self.wheels.values()
            for need in wheel.needs
            if (name := _normal(need.name)) in have
            and not need.specifier.contains(have[name], prereleases=True)
        ]

    def _follow(self, requirement: Any, found: dict[str, Wheel]) -> None:
        name = _normal(requirement.name)
        if name in self.there or name in self.wheels or name in found:
            return
        wheel = self._fetched(requirement)
        found[name] = wheel
        for need in wheel.needs:
            self._follow(need, found)

    def _fetched(self, requirement: Any) -> Wheel:
        name = _normal(requirement.name)
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            self._download(f"{requirement.name}{requirement.specifier}", folder)
        path = next(folder.glob("*.whl"))
        without(path, NOT_NEEDED.get(name, ()))
        metadata = _metadata(path)
        asked = _NEEDS.get(name, metadata.get_all("Requires-Dist", []))
        needs = [need for text in asked if _holds(need := _requirement(text), self.python)]
        return Wheel(name, str(metadata["Version"]), path, needs)

    def _download(self, what: str, folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        if _normal(_NAME.findall(what)[0]) in _FROM_SOURCE:
            command = [*pip, "wheel", "--no-deps", "--no-binary=:all:", "-w", str(folder), what]
        else:
            platforms = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["manylinux2014_x86_64"]
            command = [*pip, "download", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
            command += ["--python-version", self.python, "--implementation", "cp"]
            command += [part for platform in platforms for part in ("--platform", platform)]
            command.append(what)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LookupError(f"{what}: {' '.join(done.stderr.strip().splitlines()[-1:])}")


def without(path: Path, patterns: tuple[str, ...]) -> None:
    """Take the files of some names out of a wheel, and out of its record."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        dropped = {name for name in names for pattern in patterns if fnmatch.fnmatch(name, pattern)}
        if not dropped:
            return
        kept = {name: wheel.read(name) for name in names if name not in dropped}
        infos = {name: wheel.getinfo(name) for name in kept}
    record = next(name for name in kept if name.endswith(".dist-info/RECORD"))
    rows = [row for row in csv.reader(kept[record].decode().splitlines()) if row and row[0] not in dropped]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    kept[record] = text.getvalue().encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, content in kept.items():
            wheel.writestr(infos[name], content, zipfile.ZIP_DEFLATED)


def _own_requirements(python: str) -> list[str]:
    """Of this package and its tests."""
    asked = [_requirement(text) for text in requires("cvxfold") or []]
    kept = [one for one in asked if _normal(one.name) != "cvxfold" and _holds(one, python, ("", "test"))]
    return [f"{one.name}{one.specifier}" for one in kept]


def _metadata(path: Path) -> Any:
    with zipfile.ZipFile(path) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def _requirement(text: str) -> Any:
    from packaging.requirements import Requirement

    return Requirement(text)


def _holds(requirement: Any, python: str, extras: tuple[str, ...] = ("",)) -> bool:
    """Whether its marker does on a Linux on x86-64."""
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**machine, "extra": extra}) for extra in extras)


def _names(text: str) -> dict[str, str | None]:
    """Packages, with versions where they stand there as ``name==version``."""
    found: dict[str, str | None] = {}
    for line in re.split(r"[\n,]", text):
        name, _, version = line.partition("==")
        if _NAME.match(name.strip()):
            found[_normal(name.strip())] = version.strip() or None
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
