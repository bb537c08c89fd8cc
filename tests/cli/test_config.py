"""The command line without torch: help, config lookup, threads, errors of one line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrdiff.cli import main
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample import command as sample
from mrdiff.cli.train import arguments as configs
from mrdiff.cli.train import command as train
from mrdiff.cli.train.arguments import find_config, prepare, resolve_config_flags
from mrdiff.cli.train.resume import checkpoint_folders, find_checkpoint, run_version
from mrdiff.cli.train.start import find_start
from mrdiff.solvers.presets import EVIDENCE, PAPER
from mrdiff.system.cores import available_cores, set_process_defaults
from mrdiff.system.names import BASELINES, SAMPLERS
from tests.places import ROOT


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in ("derain.yaml", "noise.yaml"):
        (folder / name).write_text("trainer: {}\n")
    monkeypatch.setattr(configs, "config_folder", lambda: folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_bare_names_are_looked_up_with_and_without_suffix(recipes: Path) -> None:
    assert find_config("derain.yaml") == recipes / "derain.yaml"
    assert find_config("derain") == recipes / "derain.yaml"


def test_a_file_here_wins_over_a_shipped_recipe(recipes: Path) -> None:
    Path("derain.yaml").write_text("trainer: {}\n")
    assert find_config("derain.yaml") == Path("derain.yaml")


def test_a_mistyped_name_is_answered_with_the_closest(recipes: Path) -> None:
    with pytest.raises(CommandError, match=r"no config file derian.yaml \(did you mean derain"):
        find_config("derian.yaml")
    with pytest.raises(CommandError, match=r"\(there are derain.yaml, noise.yaml\)"):
        find_config("xyzzy")
    with pytest.raises(CommandError, match=r"no config file some/derain\.yaml"):
        find_config("some/derain.yaml")  # a folder was named: nothing else is meant


def test_flags_become_paths_and_the_rest_stays(recipes: Path) -> None:
    resolved = resolve_config_flags(["-c", "derain", "--config=noise", "--data.root", "x"])
    first, second = str(recipes / "derain.yaml"), str(recipes / "noise.yaml")
    assert resolved == ["--config", first, "--config", second, "--data.root", "x"]


def flags(*paths: Path) -> list[str]:
    return [part for path in paths for part in ("--config", str(path))]


def test_a_config_comes_after_those_it_is_based_on(recipes: Path) -> None:
    folder = Path("mine")
    folder.mkdir()
    (recipes / "derain.yaml").write_text("base: common.yaml")
    (recipes / "common.yaml").write_text("trainer: {}")
    (folder / "own.yaml").write_text("base: [derain, beside.yaml]")
    (folder / "beside.yaml").write_text("base: common")
    resolved = resolve_config_flags(["--config", "mine/own.yaml", "--config", "derain"])
    common, derain = recipes / "common.yaml", recipes / "derain.yaml"
    # A base that several share is not laid over what came after it.
    first = [common, derain, folder / "beside.yaml", folder / "own.yaml"]
    assert resolved == flags(*first, derain)
    again = resolve_config_flags(["--config", str(derain), "--config", "mine/own.yaml"])
    assert again == flags(common, derain, folder / "beside.yaml", folder / "own.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base: own.yaml", "own.yaml is its own base"),
        ("base: derian.yaml", r"own\.yaml: base: no config file derian\.yaml \(did you mean"),
        ("base: {a: 1}", r"own\.yaml: base: expected a config file or a list"),
        ("base: [1]", r"own\.yaml: base: expected a config file or a list"),
    ],
)
def test_bases_that_cannot_be_are_named(recipes: Path, text: str, reason: str) -> None:
    Path("own.yaml").write_text(text)
    with pytest.raises(CommandError, match=reason):
        resolve_config_flags(["--config", "own.yaml"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a: [1", r"line 2: not YAML: expected"), ("- 1", "not a mapping"), ("\t", "not YAML")],
)
def test_broken_yaml_names_file_and_reason(recipes: Path, text: str, reason: str) -> None:
    Path("bad.yaml").write_text(text + "\n")
    with pytest.raises(CommandError, match=rf"bad\.yaml.*{reason}"):
        resolve_config_flags(["--config", "bad.yaml"])


def test_fit_is_inserted(recipes: Path) -> None:
    assert prepare(["--config", "derain"])[0] == "fit"
    assert prepare(["validate", "--config", "derain"])[0] == "validate"
    with pytest.raises(CommandError, match="unknown command fut"):
        prepare(["fut"])
    with pytest.raises(CommandError, match=r"no --config given; shipped recipes: derain\.yaml"):
        prepare(["fit", "--trainer.max_steps", "3"])


@pytest.mark.parametrize(
    ("run", "arguments", "expected"),
    [
        (train.main, ["--config", "nothing.yaml"], "mrdiff train: error: no config file"),
        (sample.main, ["--inptu", "x"], "unknown option --inptu (did you mean --input?)"),
        (sample.main, [], "which photo?"),
        (main.main, ["smaple"], "mrdiff: error: unknown command smaple (did you mean sample?)"),
        (main.main, ["export", "--checkpoint", "x", "--output", "y"], "no checkpoint at x"),
    ],
)
def test_errors_are_one_line_and_status_2(run, arguments, expected, capsys) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_help_names_the_recipes(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help"]) == 0
    assert "derain.yaml, noise.yaml" in capsys.readouterr().out
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mrdiff ")


@pytest.mark.parametrize(
    "command",
    [["train.py", "--help"], ["train.py", "--config", "derian.yaml"], ["sample.py", "--help"]],
)
def test_answers_before_torch_is_imported(command: list[str], tmp_path: Path) -> None:
    script, *arguments = command
    code = (
        f"import sys, runpy; sys.argv = {[script, *arguments]!r}\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "try: runpy.run_path(sys.path[0] + '/' + sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 5  # 0.05 s unless the machine is overwhelmed


def test_modules_of_the_working_folder_shadow_nothing(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "mine.py").write_text("HERE = True")
    code = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        "from mrdiff.cli.common.parser import allow_own_classes\n"
        "allow_own_classes()\n"
        "for name in [n for n in sys.modules if n.startswith('yaml')]: del sys.modules[name]\n"
        "import yaml, mine"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_sampler_names_are_those_of_the_presets() -> None:
    assert (*PAPER, *EVIDENCE, *BASELINES) == SAMPLERS


def test_threads_respect_the_user_and_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert available_cores(cgroup=tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores(cgroup=tmp_path) == available_cores(cgroup=tmp_path / "none")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    set_process_defaults()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


TRAIN = "data: {train: {class_path: mine.Pairs}}"


@pytest.mark.parametrize(
    ("arguments", "file", "expected"),
    [
        (["fit"], "trainer: {}", False),
        (["fit"], TRAIN, True),
        (["fit"], "data: {train: mine.Pairs}", True),
        (["fit"], "data: {train: {init_args: {patch_size: 8}}}", False),
        (["fit"], "data: {train: null, batch_size: 3}", False),
        (["fit"], "data: {val: mine.Pairs}", False),
        (["fit"], "data: {val: mine.Pairs, root: here}", False),
        (["fit", "--data.train", "mine.Pairs"], "", True),
        (["fit", "--data.train=mine.Pairs"], "", True),
        (["fit", "--data.train.class_path", "mine.Pairs"], "", True),
        (["fit", "--data", "all.yaml"], "", True),
        (["fit", "--data.train.init_args.patch_size=8"], "", False),
        (["fit", "--data.batch_size=8", "--data.train.patch_size=8"], "", False),
        (["fit", "--data.root=here"], TRAIN, True),
        (["validate", "--ckpt_path=x"], TRAIN, True),
        (["validate", "--ckpt_path=x"], "data: {val: {class_path: mine.Pairs}}", True),
        (["validate", "--ckpt_path=x", "--data.val.init_args.crop_size=8"], "", False),
        (["validate", "--ckpt_path=x", "--data.test=mine.Pairs"], "", False),
        (["test", "--ckpt_path=x", "--data.test=mine.Pairs"], "", True),
    ],
)
def test_who_says_what_is_learnt_from(
    tmp_path: Path, arguments: list[str], file: str, expected: bool
) -> None:
    """Else it is what the checkpoint learnt from, with what is said besides."""
    (tmp_path / "own.yaml").write_text(file)
    found = find_start([*arguments, "--config", str(tmp_path / "own.yaml")])
    assert found.has_data is expected


@pytest.mark.parametrize("key", ["root", "degradation", "degradation.severity"])
def test_what_would_change_nothing_is_refused(key: str) -> None:
    reason = f"data.{key.split('.')[0]} alone changes nothing: name data.train"
    for command in (["fit"], ["validate", "--ckpt_path=x"], ["test", "--ckpt_path=x"]):
        with pytest.raises(CommandError, match=reason):
            find_start([*command, f"--data.{key}", "here"])


def test_last_is_the_newest_of_this_run(tmp_path: Path) -> None:
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "r")}}
    logger["init_args"]["name"] = "derain"
    trainer = {"logger": logger, "callbacks": None, "default_root_dir": None}
    with pytest.raises(CommandError, match=r"--ckpt_path last: no last\.ckpt below .*derain"):
        find_checkpoint("last", trainer)
    for i, run in enumerate(["derain/version_0", "derain/version_1", "other/version_9"]):
        path = tmp_path / "r" / run / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        os.utime(path, (i, i))
    found = find_checkpoint("last", trainer)
    assert found == tmp_path / "r/derain/version_1/checkpoints/last.ckpt"
    assert run_version(found, trainer) == 1
    assert run_version(tmp_path / "x.ckpt", trainer) is None
    named = tmp_path / "r/derain/20260102-030405/checkpoints/last.ckpt"
    assert run_version(named, trainer) == "20260102-030405"
    with pytest.raises(CommandError, match=r"no checkpoint nothing\.ckpt"):
        find_checkpoint("nothing.ckpt", trainer)


def test_a_checkpoint_callback_s_folder_comes_first(tmp_path: Path) -> None:
    callback = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "here"}}
    assert checkpoint_folders({"callbacks": [callback], "logger": True}) == [Path("here")]
    assert checkpoint_folders({"default_root_dir": "runs"}) == [Path("runs")]
    assert checkpoint_folders({}) == [Path("lightning_logs")]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_jobs_keep_relative_paths_and_kinds(tmp_path: Path) -> None:
    names = ["a.jpg", "s/b.png", "c.gif", "c.pgm", "d.tif", "out/a.jpg"]
    touch(*(tmp_path / name for name in names))
    output = tmp_path / "out"  # within the input: what is there is no input
    jobs = plan_targets(find_photos(tmp_path, output=output), output)
    targets = [job.target.relative_to(output).as_posix() for job in jobs]
    assert targets == ["a.jpg", "c.gif.png", "c.pgm.png", "d.tif", "s/b.png"]
    alone = plan_targets(find_photos(tmp_path / "s" / "b.png"), output)
    assert [(job.target, job.name) for job in alone] == [(output / "b.png", jobs[4].name)]


def test_references_match_by_path_then_stem(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ["lq/s/a.jpg", "lq/b.png", "gt/a.png", "gt/s/a.png"]))
    photos = find_photos(tmp_path / "lq", reference=tmp_path / "gt")
    assert [photo.reference for photo in photos] == [None, tmp_path / "gt/s/a.png"]
    touch(tmp_path / "other/x.png")
    with pytest.raises(CommandError, match="no file there has the stem"):
        find_photos(tmp_path / "lq", reference=tmp_path / "other")


def test_originals_are_never_overwritten(tmp_path: Path) -> None:
    touch(tmp_path / "lq/a.png", tmp_path / "gt/a.png")
    with pytest.raises(CommandError, match="would overwrite"):
        plan_targets(find_photos(tmp_path / "lq"), tmp_path / "lq")
    photos = find_photos(tmp_path / "lq", reference=tmp_path / "gt")
    with pytest.raises(CommandError, match="would overwrite"):
        plan_targets(photos, tmp_path / "gt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="no images in this folder"):
        find_photos(tmp_path / "empty")
