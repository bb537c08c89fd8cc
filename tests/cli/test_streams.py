"""Standard streams that are full, closed or left by their reader; names that show themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mrdiff.cli.common.errors import CommandError, one_line, run_command
from mrdiff.system.text import shown
from tests.places import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="needs a shell and signals")

# Prints a lot, writes its result, prints the rest.
WORK = """
import sys
from pathlib import Path
from mrdiff.cli.common.errors import run_command

def work():
    for line in range(3000):
        print("a line of the table", line, "caf\\udce9 日本", flush=line % 100 == 0)
        print("note: one", file=sys.stderr)
    Path("result").write_text("whole")
    print("restored 1")
    return int(sys.argv[1])

sys.exit(run_command(work, program="mrdiff"))
"""


def shell(folder: Path, redirected: str, *, status: int = 0) -> subprocess.CompletedProcess[str]:
    line = f'"{sys.executable}" work.py {status} {redirected}'
    (folder / "work.py").write_text(WORK, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@posix
@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        ("2>/dev/null", 0, None),
        (">/dev/full", 1, "mrdiff: error: standard output: No space left on device"),
        (">&-", 1, "mrdiff: error: standard output: it is closed"),
        ("2>/dev/null | head -1", 141, None),
        ("2>&1 | head -1", 141, None),
        ("2>/dev/full >/dev/null", 0, None),
        ("2>&- >/dev/null", 0, None),
        ("0<&- >&- 2>&-", 1, None),
    ],
)
def test_no_stream_costs_the_result(
    redirected: str, status: int, said: str | None, tmp_path: Path
) -> None:
    if "/dev/full" in redirected and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    done = shell(tmp_path, redirected)
    assert (tmp_path / "result").read_text() == "whole"
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if said is not None:
        assert [line for line in done.stderr.splitlines() if line != "note: one"] == [said]


@posix
def test_a_failure_keeps_its_status_and_every_name_can_be_printed(tmp_path: Path) -> None:
    assert shell(tmp_path, "| head -1", status=2).returncode == 2
    done = shell(tmp_path, "2>/dev/null", status=1)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == r"a line of the table 0 caf\udce9 \u65e5\u672c"


@posix
def test_sigterm_takes_away_what_is_half_written(tmp_path: Path) -> None:
    work = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from mrdiff.cli.common.errors import run_command\n"
        "from mrdiff.system.files import appearing, replacing\n"
        "def work():\n"
        "    with appearing(Path('folder')) as made, replacing(Path('file')) as half:\n"
        "        (made / 'a').touch(); half.touch()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(run_command(work, program='mrdiff'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", work]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 143
    assert os.listdir(tmp_path) == []


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_was_said_before_a_kill_was_said(unbuffered: str, tmp_path: Path) -> None:
    work = (
        "import os, signal, sys\n"
        "from mrdiff.cli.common.errors import run_command\n"
        "def work():\n"
        "    print('note: one', file=sys.stderr)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_command(work, program='mrdiff')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", work]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"note: one\n")


def test_the_callers_streams_and_signals_come_back() -> None:
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)

    def fail() -> int:
        raise CommandError("no")

    assert run_command(fail, program="mrdiff") == 1
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)) == before


def test_names_show_what_they_hold() -> None:
    assert shown("caf\udce9.png") == r"caf\xe9.png"
    assert shown("a\n\x1b[31mb\u202egnp.\x00") == r"a\n\x1b[31mb\u202egnp.\x00"
    plain = "Grüße 日本\u3000e\u0301.png"
    assert shown(plain) == plain
    assert one_line("two\n  lines \x1b]0;title\x07") == r"two lines \x1b]0;title\x07"
