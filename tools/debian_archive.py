"""Debian's archive for the tools: packages of any suite, fetched and unpacked beside the machine's own apt set-up.

Whatever the tools download lands in one cache folder, `nkform-lab` in the user's cache folder. The address of the
archive and its keyring are those that the machine's apt already uses for Debian; nothing here knows a host name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CHECK_INTERVAL = 24 * 3600  # seconds between two looks for newer packages
WORK_PREFIX = ".new-"  # of folders that are not complete yet


class ToolError(Exception):
    """The tool cannot do its work; the text says why and what to do."""

    exit_code = 125  # as `env` and `docker run` do: the tool's own failure, not that of the command it runs


def note(text: str) -> None:
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return its output; a failure carries its error text."""
    try:
        done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        raise ToolError(f"{command[0]} is not installed") from None
    if done.returncode:
        shown = shlex.join(word for word in map(str, command) if not word.startswith("-o"))  # apt's options are many
        raise ToolError(f"{shown} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nkform-lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name: str, waiting: str = "") -> Iterator[None]:
    """Hold a lock of the cache: labs that start at the same time must not unpack the same thing twice.

    `waiting` is what to say when another process holds it.
    """
    with (cache_folder() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                note(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fresh(stamp: Path) -> bool:
    """Whether the file was touched within the last day."""
    return stamp.exists() and time.time() - stamp.stat().st_mtime < CHECK_INTERVAL


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well: what is in the cache is always complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=target.parent))
    try:
        work.chmod(0o755)
        yield work
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what tools that were killed left of their work in `folder`; whoever calls this holds the folder's lock."""
    for work in folder.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(work, ignore_errors=True)


class Suite:
    """One Debian suite, with package lists of its own: the machine's apt set-up is read and never changed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = cache_folder() / "lists" / name

    def refresh(self) -> None:
        """Bring the lists up to date, once a day."""
        with locked(f"suite-{self.name}"):
            if not fresh(self._stamp):
                self._refresh()

    @property
    def _stamp(self) -> Path:
        return self.folder / "refreshed"

    def _refresh(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        uri, keyring = debian_source()
        signed_by = f"Signed-By: {keyring}\n" if keyring else ""
        (self.folder / "suite.sources").write_text(
            f"Types: deb\nURIs: {uri}\nSuites: {self.name}\nComponents: main\n{signed_by}"
        )
        try:
            self._apt("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
        except ToolError as error:
            if not self._stamp.exists():
                raise ToolError(f"cannot get the package lists of Debian {self.name}: {error}") from error
            note(f"no fresh package lists of {self.name}, going on with the old ones")
            return
        self._stamp.touch()

    def field(self, package: str, field: str) -> str:
        """A field of a package's description; empty when the suite or the package has none."""
        try:
            text = self._apt("apt-cache", "show", "--no-all-versions", package)
        except ToolError:
            return ""
        match = re.search(rf"^{field}: (.*)$", text, re.MULTILINE)
        return match[1] if match else ""

    def unpack(self, packages: Sequence[str], target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            self._apt("apt-get", "download", "-qq", *packages, cwd=Path(work))
            for file in sorted(Path(work).glob("*.deb")):
                call("dpkg", "-x", file, target)

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::SourceList": self.folder / "suite.sources",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::Status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        return call(program, *(f"-o{key}={value}" for key, value in options.items()), *arguments, cwd=cwd)


def debian_source() -> tuple[str, str]:
    """The URI and the keyring of the archive that this machine already uses for Debian itself.

    Both of apt's formats are understood: the old one-line lists and the stanzas of deb822.
    """
    places = [*Path("/etc/apt/sources.list.d").glob("*"), Path("/etc/apt/sources.list")]
    for path in sorted(p for p in places if p.suffix in (".list", ".sources") and p.is_file()):
        for stanza in source_stanzas(path.read_text()):
            uri = stanza.get("uris", "").split(" ")[0].rstrip("/")
            suites = stanza.get("suites", "").split()
            # The archive itself, not that of the security updates.
            if (
                "deb" in stanza.get("types", "").split()
                and codename() in suites
                and "main" in stanza.get("components", "")
            ):
                return uri, stanza.get("signed-by", "")
    raise ToolError(f"/etc/apt has no source for Debian {codename()}; the address of Debian's archive is taken from it")


def source_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The sources in a file of apt's, in either format, as fields of a deb822 stanza with lower-case names."""
    for block in re.split(r"\n\s*\n", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        fields = {
            key.lower(): value.strip() for key, value in re.findall(r"^([A-Za-z-]+):\s*(.*)$", block, re.MULTILINE)
        }
        if fields:
            yield fields
            continue
        for kind, options, uri, suite, components in re.findall(
            r"^(deb)\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*)$", block, re.MULTILINE
        ):
            signed = re.search(r"signed-by=(\S+)", options)
            yield {
                "types": kind,
                "uris": uri,
                "suites": suite,
                "components": components,
                "signed-by": signed[1] if signed else "",
            }


def codename() -> str:
    """The Debian release of this machine, as in "bookworm"."""
    match = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not match or not Path("/usr/bin/apt-get").exists():
        raise ToolError("this works on Debian only: it uses packages of its archive")
    return match[1]


def install(requirements: str) -> None:
    """Install the Debian packages that requirements/`requirements` lists and the machine lacks."""
    try:
        subprocess.run(
            [CHECKOUT / "tools/setup.sh", "--packages", CHECKOUT / "requirements" / requirements],
            check=True,
            stdout=sys.stderr,
        )
    except subprocess.CalledProcessError:
        raise ToolError(
            f"the Debian packages in requirements/{requirements} are not there and could not be installed"
        ) from None


def newer(left: str, right: str) -> bool:
    """Whether one Debian version is newer than another."""
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False).returncode == 0
