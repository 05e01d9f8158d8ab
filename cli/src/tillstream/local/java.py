"""Servers that run on Java: a Java that is new enough, and the jars, which Maven copies once.

Jars are kept in a cache outside the project's tree (``$XDG_CACHE_HOME/tillstream``), a folder for each version.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError, version

MIN_JAVA = 17
"""Kafka 4's broker needs it, and so does DynamoDB Local."""
DOWNLOAD_SECONDS = 600.0
"""Some tens of jars, about 110 MB."""


@dataclass(frozen=True)
class Program:
    """What Maven's artifacts make a server of.

    Args:
        name: ``kafka``: its artifacts are listed in ``kafka.pom.xml`` beside this file, where the property
            ``kafka.version`` is its version.
        title: for people: "a Kafka broker".
        otherwise: what else a person can do who has no Java or Maven: "; or set ..."; may be empty.
    """

    name: str
    title: str
    otherwise: str = ""

    @cached_property
    def version(self) -> str:
        """The version that the pom names."""
        found = re.search(rf"<{self.name}\.version>([^<]+)<", self._pom.read_text())
        assert found is not None, f"the pom names no {self.name}.version"  # noqa: S101 (a file of this package)
        return found[1]

    def missing(self) -> str | None:
        """A sentence on what this machine lacks to run it; None when nothing is."""
        try:
            self.java()
            if not self.folder.is_dir():
                self._maven()
        except ServerError as error:
            return str(error)
        return None

    def java(self) -> str:
        """Path of a Java of at least version 17: from ``JAVA_HOME``, else from the PATH.

        Raises:
            ServerError: there is none, or it is too old.
        """
        home = os.environ.get("JAVA_HOME")
        java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
        wanted = (
            f"{self.title} needs Java {MIN_JAVA} or later and Maven (on Debian: apt-get install "
            f"openjdk-17-jre-headless maven){self.otherwise}"
        )
        if java is None:
            raise ServerError(f"no java {f'in JAVA_HOME={home}' if home else 'on the PATH'}: {wanted}")
        said = version(java, "-version")
        major = re.search(r'version "(?:1\.)?(\d+)', said)
        if major is None or int(major[1]) < MIN_JAVA:
            raise ServerError(f"{java} is {said.splitlines()[0] if said else 'no Java'}: {wanted}")
        return java

    def jars(self, nursery: Nursery) -> Path:
        """The folder with the jars; copied by Maven when they are not there yet.

        Raises:
            ServerError: Maven is missing or fails; with what it said.
        """
        folder = self.folder
        if folder.is_dir():
            return folder
        maven = self._maven()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():  # another process was faster
                return folder
            unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
            try:
                with as_file(self._pom) as pom:
                    run(
                        nursery,
                        "maven",
                        [
                            *(maven, "--batch-mode", "--quiet", "--file", str(pom), "dependency:copy-dependencies"),
                            *("-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
                        ],
                        f"Maven could not copy {self.name}'s jars to {folder}",
                        DOWNLOAD_SECONDS,
                    )
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    @property
    def folder(self) -> Path:
        """Where the jars are kept, once they are there.

        Raises:
            ServerError: this user has no home.
        """
        root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        try:
            return Path(root).expanduser() / "tillstream" / f"{self.name}-{self.version}"
        except RuntimeError as error:
            raise ServerError(f"no place for {self.name}'s jars: {error} (set HOME or XDG_CACHE_HOME)") from error

    @property
    def _pom(self) -> Traversable:
        return files("tillstream.local") / f"{self.name}.pom.xml"

    def _maven(self) -> str:
        maven = shutil.which("mvn")
        if maven is None:
            raise ServerError(
                f"no mvn on the PATH: Maven fetches {self.name}'s jars (on Debian: apt-get install maven)"
                f"{self.otherwise}"
            )
        return maven


def run(nursery: Nursery, name: str, command: Sequence[str], failure: str, seconds: float) -> None:
    """Runs a program to its end.

    Raises:
        ServerError: it failed, or was not done in time; begins with ``failure``.
    """
    child = nursery.spawn(name, command, log=nursery.folder(name) / "log")
    code = child.wait(seconds)
    child.stop()
    if code != 0:
        how = "" if code is not None else f" not done after {seconds:g} s"
        raise ServerError("\n".join([f"{failure}:{how}", *child.last_lines(15)]))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the system gives the lock back when the process ends, in whatever way."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
