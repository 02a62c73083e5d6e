"""What Windows and macOS need, as far as it can be checked elsewhere. The pack was never run on Windows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest
import torch

from framepack.checkpoints.writing import write
from framepack.store.section_store import SectionStore
from tests.tools.server import WORKFLOW, serving
from tests.windows import windows_disk
from tools.client import fetch, run
from tools.host import REPO, link_folder

SOURCES = sorted(p for f in ("framepack", "nodes", "tools", "benchmarks") for p in (REPO / f).rglob("*.py"))
MODULES = {"fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog", "posix", "readline", "curses", "crypt"}
ATTRIBUTES = {
    "os": "chown fork forkpty getegid geteuid getgid getloadavg getpgid getuid killpg link mkfifo mknod nice "
    "posix_spawn sched_getaffinity sched_setaffinity setpgid setsid statvfs symlink sync sysconf uname wait4",
    "signal": "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGSTOP SIGCONT SIGQUIT SIGPIPE alarm pause setitimer sigwait",
    "time": "tzset clock_gettime pthread_getcpuclockid",
}
METHODS = {"symlink_to", "hardlink_to", "add_signal_handler", "rename"}  # rename: replaces a file on POSIX alone
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def portable(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is not under an `if` which asks for the system."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        asks = isinstance(child, ast.If | ast.IfExp) and re.search(r"sys\.platform|os\.name", ast.unparse(child.test))
        if not asks:
            yield from portable(child)


def faults_of(tree: ast.AST) -> list[str]:
    """Calls that another system lacks, and text files without an encoding."""
    found = []
    for node in portable(tree):
        match node:
            case ast.Import(names=names):
                found += [a.name for a in names if a.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                found.append(module)
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if attr in ATTRIBUTES.get(name, "").split():
                found.append(f"{name}.{attr}")
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in METHODS:
                found.append(attr)
            case ast.Call() if text_without_encoding(node):
                found.append(f"line {node.lineno}: text without an encoding")
    return found


def text_without_encoding(call: ast.Call) -> bool:
    """Does it read or write text in whatever encoding the system has? Windows' is not UTF-8."""
    if any(k.arg == "encoding" for k in call.keywords):
        return False
    match call.func:
        case ast.Attribute(attr="read_text"):
            return not call.args
        case ast.Attribute(attr="write_text"):
            return len(call.args) < 2
        case ast.Name(id="open"):
            mode = ast.unparse(call.args[1]) if len(call.args) > 1 else ""
            return "b" not in mode
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(REPO).as_posix())
def test_a_source_file_calls_nothing_that_windows_lacks(path: Path):
    assert faults_of(ast.parse(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import fcntl",
        "from resource import getrusage",
        "os.killpg(1, 9)",
        "signal.SIGKILL",
        "a.symlink_to(b)",
        "path.rename(other)",
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "if sys.platform:\n    pass\nos.fork()",
    ],
)
def test_the_check_finds(code: str):
    assert faults_of(ast.parse(code))


def test_the_check_leaves_branches_for_one_system_and_bytes_alone():
    code = (
        "if os.name == 'posix':\n    os.fork()\nopen(path, 'rb')\npath.read_text('utf-8')\nopen(path, encoding='utf-8')"
    )
    assert not faults_of(ast.parse(code))


def fits_windows(name: str) -> bool:
    """May a file have this name on Windows, in a user's folder of usual length?"""
    stem = name.split(".")[0].lower()
    return not re.search(r'[<>:"|?*\x00-\x1f\\]|[. ]$', name) and stem not in RESERVED and len(name) <= 120


def test_every_file_of_the_pack_has_a_name_that_windows_takes():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    paths = list(filter(None, done.stdout.decode().split("\0")))
    assert [p for p in paths if not all(map(fits_windows, p.split("/"))) or len(p) > 120] == []
    assert len({p.lower() for p in paths}) == len(paths), "two names differ in case alone"


def test_files_of_the_section_store_have_names_that_windows_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (names.append(self.name), plain(self, *a, **k))[1])
    assert SectionStore(tmp_path, 10**6).put("f" * 64, torch.zeros(2))
    names += [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    assert all(map(fits_windows, names))


def test_the_section_store_works_where_files_in_use_cannot_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, value = SectionStore(tmp_path, 100), torch.arange(8.0)
    with windows_disk(monkeypatch):
        assert store.put("a", value)
        with (tmp_path / "a.safetensors").open("rb"):  # another run reads it
            assert store.put("a", value)
            assert store.put("b", value)  # makes room, and cannot
        assert torch.equal(store.get("a"), value)
        assert torch.equal(store.get("b"), value)
        (tmp_path / "a.safetensors").write_bytes(b"broken")
        assert store.get("a") is None
        assert store.put("a", value)
        assert torch.equal(store.get("a"), value)


def test_a_checkpoint_is_written_where_files_in_use_cannot_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with windows_disk(monkeypatch):
        write(tmp_path / "a.safetensors", {"x": (torch.float32, (2,))}, [("x", torch.zeros(2))], {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_client_saves_where_files_in_use_cannot_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = [{"filename": "a.mp4", "subfolder": "", "type": "output"}] * 2
    with serving(outputs=saved) as server, windows_disk(monkeypatch):
        done = run(server.url, WORKFLOW)
        paths = fetch(server.url, done, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert len(paths) == 2


def test_the_stand_in_refuses_what_windows_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(bytes(4096))
    mapped = torch.from_file(str(one), size=1024)
    with windows_disk(monkeypatch):
        with pytest.raises(PermissionError):
            one.unlink()
        with pytest.raises(PermissionError):
            other.replace(one)
        with pytest.raises(FileExistsError):
            os_rename(other, one.with_name("other2"), other)
    del mapped


def os_rename(source: Path, free: Path, taken: Path) -> None:
    source.rename(free)
    free.write_bytes(b"")
    taken.write_bytes(b"")
    free.rename(taken)


def test_a_link_to_the_pack_follows_its_folder(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    for name in ("one", "one", "two"):
        link_folder(link, tmp_path / name)
        assert link.resolve() == tmp_path / name


def test_a_windows_path_of_a_workflow_from_the_host_stays_in_its_folder():
    from tools.outputs import FORBIDDEN

    assert PureWindowsPath(FORBIDDEN.sub("_", r"..\..\a.mp4")).name == ".._.._a.mp4"
