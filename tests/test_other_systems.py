"""Windows and macOS, as far as they can be played here: what only Unix has is not asked for, paths have slashes."""

import os
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath

import pytest

from affuse import files
from affuse.extract.videos import find_jobs
from affuse.pipelines.report.media import link

ROOT = Path(__file__).parents[1]
WINGS = ("affuse", "extract", "features", "fuse", "pipelines")

# Once all libraries are there, our modules are imported anew without the modules, signals, functions and errors that
# Windows or macOS lack.
ELSEWHERE = """
import errno, importlib, os, signal, sys
for again in (False, True):
    for module in sys.argv[1:]:
        importlib.import_module(module)
    if not again:
        for name in [name for name in sys.modules if name.partition(".")[0] == "affuse"]:
            del sys.modules[name]
        for name in ("fcntl", "resource", "grp", "pwd", "termios", "tty", "pty", "syslog"):
            sys.modules[name] = None
        for name in ("SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask"):
            delattr(signal, name)
        for name in ("fork", "killpg", "getuid", "geteuid", "sched_getaffinity", "sysconf", "mkfifo", "O_DIRECTORY"):
            delattr(os, name)
        del errno.EDQUOT
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows lacks them by itself")
def test_every_module_is_imported_without_what_only_unix_has():
    files = [path.relative_to(ROOT) for wing in WINGS for path in (ROOT / wing).rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    names = [name if name.startswith("affuse") else f"affuse.{name}" for name in modules]
    assert "affuse.pipelines.film" in names
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def windows(monkeypatch):
    """Windows opens no folder, and syncs no file that is open for reading only."""
    opened, writable = os.open, set()

    def open_file(path, flags, *rest, **named):
        if Path(path).is_dir() and not named:  # what shutil.rmtree does here, it does otherwise there
            raise PermissionError(13, "Permission denied", str(path))
        descriptor = opened(path, flags, *rest, **named)
        (writable.add if flags & (os.O_RDWR | os.O_WRONLY) else writable.discard)(descriptor)
        return descriptor

    def fsync(descriptor):
        if descriptor not in writable:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr("os.open", open_file)
    monkeypatch.setattr("os.fsync", fsync)


@pytest.mark.usefixtures("windows")
def test_files_and_folders_are_replaced_as_windows_lets_them(tmp_path):
    for text in ("one", "two"):
        files.write_text(tmp_path / "a.txt", text)
        files.publish(tmp_path / "b", lambda folder, text=text: (folder / "c").write_text(text), folder=True)
        assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "c").read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b"}


@pytest.mark.usefixtures("windows")
def test_without_locks_what_is_half_written_is_left_for_a_day(tmp_path):
    for number, age in enumerate((0, files.ABANDONED + 60)):
        left = tmp_path / f".x.{files.MACHINE}.{number:016x}.partial"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    assert files.sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f".x.{files.MACHINE}.{0:016x}.partial"]


def test_ids_and_links_have_slashes(tmp_path, monkeypatch):
    (video := tmp_path / "day one" / "clip.mp4").parent.mkdir()
    video.touch()
    (job,) = find_jobs(tmp_path)
    assert (job.id, job.name) == ("day one/clip", "day one/clip.mp4")
    assert link(video, tmp_path / "report.html") == "day%20one/clip.mp4"
    assert files.file_name(PureWindowsPath("day one", "clip").as_posix()) == "day one%2Fclip"

    def refuse(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", refuse)
    assert link(video, tmp_path / "report.html") == video.as_uri()
