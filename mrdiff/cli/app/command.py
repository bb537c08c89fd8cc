"""``mrdiff app``: a page in the browser on which a photo is dropped and comes back restored.

What can be checked without torch and gradio is checked first, so that a wrong flag answers at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
from functools import partial

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, positive, whole
from mrdiff.cli.common.paths import check_checkpoint
from mrdiff.system.cores import set_process_defaults

__all__ = ["main", "make_parser"]

_as_port = partial(whole, least=1, most=65535, rule="a port lies in 1 to 65535")


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    parser = LineParser(prog=program, description="Restore photos on a page in the browser.")
    parser.add_checkpoint(bundled=True)
    parser.add_allow_package()
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    who = (
        "address to serve at: this machine alone, or 0.0.0.0, everybody who reaches it (127.0.0.1)"
    )
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=who)
    add("--port", type=_as_port, default=7860, metavar="N", help="to serve at (7860)")
    bomb = "larger photos are refused, against decompression bombs (180)"
    add("--max_megapixels", type=positive, default=180, metavar="N", help=bomb)
    add("--max_upload", type=positive, default=64, metavar="MB", help="of a file (64)")
    add("--open", action="store_true", help="open the page in the browser")
    return parser


def _check_address(host: str, port: int) -> None:
    """Listen there for a moment."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        flags = f"--host {host} --port {port}"
        message = f"{flags}: cannot serve there: {error.strerror}: choose others"
        raise CommandError(message, status=2) from error


def _check(options: argparse.Namespace) -> None:
    check_checkpoint(options)
    if importlib.util.find_spec("gradio") is None:
        raise CommandError("the page needs gradio: pip install 'mrdiff[app]'")
    _check_address(options.host, options.port)


@command("mrdiff app")
def main(arguments: list[str], program: str) -> int:
    """Run the command until it is interrupted; returns its exit status."""
    options = make_parser(program).parse(arguments)
    _check(options)
    set_process_defaults()
    from mrdiff.cli.app.run import run_app  # torch: seconds

    return run_app(options)
