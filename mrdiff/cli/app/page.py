"""How the page looks, and which part of it does what."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mrdiff.cli.app.desk import Desk
from mrdiff.cli.app.studio import OWN, Studio
from mrdiff.solvers.presets import MOST_NFE

__all__ = ["make_page", "serve"]

_THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],  # of the machine: nothing is fetched
    font_mono=["ui-monospace", "monospace"],
)
_STYLE = """
.gradio-container { max-width: 860px !important; width: 100%; margin: 0 auto !important; }
.said { min-height: 4em; }
footer { display: none !important; }
"""
_MINE = ("127.0.0.1", "localhost")
_NETWORK: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network"}
_HIDDEN: dict[str, Any] = {"api_visibility": "private"}  # from programs that list functions


def _settings(studio: Studio) -> list[Component]:
    """What :class:`mrdiff.cli.app.studio.Settings` has after the task."""
    own = studio.sampler(OWN)
    samplers: list[Any] = [("the model's own", OWN), *studio.samplers]
    with gr.Accordion("Settings", open=False), gr.Row():
        sampler = gr.Dropdown(samplers, value=OWN, label="Sampler", min_width=200)
        nfe = _number("Network calls", own.nfe, minimum=1, maximum=MOST_NFE, precision=0)
        noise = _number("Temperature", own.temperature, minimum=0, maximum=1, step=0.1)
        seed = _number("Seed", 0, precision=0)
        samples = _number("Samples", 1, minimum=1, maximum=100, precision=0)

    def numbers(name: str) -> tuple[int, float]:
        chosen = studio.sampler(name)
        return chosen.nfe, chosen.temperature

    # Not ``input``, which comes once more when the field is left, and would undo what was typed.
    sampler.change(numbers, sampler, [nfe, noise], show_progress="hidden", **_HIDDEN)
    return [sampler, nfe, noise, seed, samples]


def _number(label: str, value: float, **options: Any) -> gr.Number:
    return gr.Number(value, label=label, min_width=100, **options)


def _actions(
    studio: Studio, start: str, take: str
) -> tuple[gr.Dropdown, gr.Button, gr.Button, gr.DownloadButton]:
    """The task, and buttons to start, to stop and to take the result."""
    tasks: list[Any] = [("Task: judged", "auto"), *studio.tasks]
    known: dict[str, Any] = {"visible": bool(studio.tasks), "show_label": False, "container": False}
    with gr.Row(equal_height=True):
        return (
            gr.Dropdown(tasks, value="auto", label="Task", scale=3, min_width=220, **known),
            gr.Button(start, variant="primary", size="md", min_width=100),
            gr.Button("Stop", size="md", min_width=80),
            gr.DownloadButton(take, size="md", min_width=100, interactive=False),
        )


def _one(desk: Desk) -> None:
    """The tab of a single photo."""
    upload = gr.State()
    dropped = gr.File(show_label=False, height=140, elem_id="photo")
    task, start, stop, taken = _actions(desk.studio, "Restore", "Download")
    sides = gr.ImageSlider(
        show_label=False,
        buttons=["fullscreen"],
        max_height=470,
        interactive=False,
        visible=False,
        elem_id="sides",
    )
    said = gr.HTML(padding=False, elem_id="said", elem_classes="said")
    spread = gr.Image(label="Uncertainty", buttons=["fullscreen"], visible=False, elem_id="spread")
    settings = [task, *_settings(desk.studio)]
    with gr.Accordion("Holes to fill", open=False, visible=desk.studio.takes_mask):
        gr.Markdown("Paint over what is missing, choose the task that fills it, and press Restore.")
        canvas = gr.ImageEditor(
            show_label=False,
            brush=gr.Brush(colors=["#e11d48"], color_mode="fixed"),
            transforms=(),
            layers=False,
            sources=(),
            format="png",
            elem_id="canvas",
        )
    given, shown = [upload, canvas, *settings], [sides, taken, spread, said]
    run: dict[str, Any] = {"show_progress_on": said, **_NETWORK, **_HIDDEN}
    all_ = [upload, canvas, *shown]
    chosen = dropped.upload(desk.choose, dropped, all_, preprocess=False, **_HIDDEN)
    runs = [chosen.success(desk.restore, given, shown, **run)]
    runs.append(start.click(desk.restore, given, shown, **run))
    dropped.clear(desk.clear, None, all_, cancels=runs, **_HIDDEN)
    stop.click(None, cancels=runs)


def _several(desk: Desk) -> None:
    """The tab of several photos."""
    uploads = gr.State()
    files = gr.File(show_label=False, file_count="multiple", height=200, elem_id="photos")
    folder = gr.UploadButton("Choose a folder", file_count="directory", size="sm")
    as_sent: dict[str, Any] = {"preprocess": False, "postprocess": False, **_HIDDEN}
    folder.upload(lambda sent: sent, folder, files, **as_sent)
    # Files alone are taken as they were sent: gradio checks what else is.
    files.change(lambda sent: sent, files, uploads, preprocess=False, **_HIDDEN)
    task, start, stop, taken = _actions(desk.studio, "Restore all", "Download zip")
    said = gr.HTML(padding=False, elem_id="said-all", elem_classes="said")
    given = [uploads, task, *_settings(desk.studio)]
    run: dict[str, Any] = {"show_progress_on": said, **_NETWORK, **_HIDDEN}
    stop.click(None, cancels=start.click(desk.restore_all, given, [taken, said], **run))


def make_page(desk: Desk, *, title: str) -> gr.Blocks:
    """The page, not yet served; ``title`` is the model's name."""
    with gr.Blocks(title="mrdiff", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(
            f"## Restore photos\nModel {title}. The photos stay on the machine that runs it."
        )
        with gr.Tab("One photo"):
            _one(desk)
        with gr.Tab("Several photos"):
            _several(desk)
    return page


def serve(page: gr.Blocks, host: str, port: int, *, max_upload: int) -> str:
    """Serve the page in threads beside this one; returns its address. Uploads are in MB at most.

    A page for this machine alone answers to the names of this machine alone: other pages in the
    browser may not ask it by theirs.
    """
    page.queue(api_open=False)
    mine = host in _MINE
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=[*_MINE] if mine else ["*"])
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=max_upload * 1_000_000,
        allowed_paths=[],
        root_path="",
        app_kwargs={"middleware": [guard]},
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        theme=_THEME,
        css=_STYLE,
    )
    return address
