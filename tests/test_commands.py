"""The commands as a user runs them."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from programs import REPOSITORY, run_program

SCENE = [
    "configs/cra/train_cra_synthetic.yaml",
    "data_root={rooms}",
    "cache=false",
    "worker_num=0",
    "train_set_list=[scannet/train_000/black_64]",
    "val_set_list=[]",
    "total_step=1",
    "train_dataset_cfg.train_ray_num=4",
]


def run(*arguments, code=0):
    done = run_program(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run_apart(*arguments, code=0):
    """Run it in a process of its own, as a user's shell does."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def small(rooms, out):
    return [
        f"data_root={rooms}",
        f"cache_root={out / 'cache'}",
        f"output_root={out}",
        "device=cpu",
        "worker_num=1",
        "depth_sample_num=8",
        "fine_depth_sample_num=8",
        "train_dataset_cfg.min_wn=3",
        "train_dataset_cfg.max_wn=4",
    ]


@pytest.fixture(scope="module")
def trained(rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    done = run_apart(
        "run_training.py",
        "--cfg",
        "configs/cra/train_cra_synthetic.yaml",
        *small(rooms, out),
        f"train_set_list={rooms / 'train.txt'}",
        "val_set_list=[scannet/val_000/black_32]",
        "total_step=4",
        "train_dataset_cfg.train_ray_num=32",
    )
    return out, done


def test_training_then_evaluation(trained, rooms):
    out, done = trained
    model = out / "train_cra_synthetic" / "model_best.pth"
    assert "trained 4 steps" in done.stdout and model.is_file() and "Traceback" not in done.stderr
    done = run(
        "run_evaluation.py",
        "--cfg",
        "configs/cra/test_cra_synthetic.yaml",
        "--model-path",
        model,
        *small(rooms, out),
        f"val_set_list={rooms / 'test.txt'}",
    )
    assert "warning" not in done.stderr
    folder = out / "test_cra_synthetic"
    results = json.loads((folder / "results.json").read_text())
    assert set(results["methods"]) == {
        "S-Ray",
        "nearest reference, copied",
        "nearest reference, warped by its depth",
        "splat of all references, no network",
        "commonest class",
    }
    copied, warped, splatted = (
        results["methods"][name]
        for name in (
            "nearest reference, copied",
            "nearest reference, warped by its depth",
            "splat of all references, no network",
        )
    )
    assert splatted["psnr"] > warped["psnr"] + 1 > copied["psnr"] + 2
    assert splatted["depth_median"] < 0.03 < results["methods"]["S-Ray"]["depth_median"]
    assert results["network"] == "S-Ray" and splatted["coverage"] < 1 == results["methods"]["S-Ray"]["coverage"]
    assert {"psnr_edges", "psnr_holes", "ssim_edges", "ssim_holes"} < set(
        results["scenes"]["scannet/test_000/black_64"]
    )
    assert str(folder / "panels") in done.stdout and "| S-Ray |" in done.stdout
    assert "IoU per class" in (folder / "results.md").read_text()
    (scene,) = results["scenes"]
    assert len(list((folder / "panels").rglob("*.jpg"))) == results["scenes"][scene]["frames"] >= 2


def test_replica_from_its_config(replica_rooms, tmp_path):
    done = run(
        "run_training.py",
        "--cfg",
        "configs/cra/train_cra_replica.yaml",
        *small(replica_rooms, tmp_path),
        f"train_set_list={replica_rooms / 'train.txt'}",
        "val_set_list=[replica/val_000/Sequence_1/black_32]",
        "total_step=2",
        "train_dataset_cfg.train_ray_num=16",
    )
    assert "trained 2 steps" in done.stdout and (tmp_path / "train_cra_replica" / "model_best.pth").is_file()


def test_generating_rooms(tmp_path):
    arguments = (
        "-m",
        "dataset.synthetic",
        "tiny",
        "--out",
        tmp_path,
        "--rooms",
        1,
        0,
        1,
        "--frames",
        2,
        "--workers",
        2,
    )
    assert "2 rooms of 2 frames" in run(*arguments).stdout
    assert (tmp_path / "test.txt").read_text() == "scannet/test_000/black_64\n"
    assert "error: --image 3: give WIDTHxHEIGHT" in run(*arguments, "--image", 3, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/cra/nowhere.yaml"], "configs/cra/nowhere.yaml: there is no such config file"),
        (
            ["configs/cra/train_cra_scannet.yaml", "data_root=nowhere"],
            "there is no folder nowhere/scannet/scene0000_00",
        ),
        (["configs/cra/train_cra_synthetic.yaml", "total_stepp=3"], "did you mean `total_step`?"),
        (["configs/cra/train_cra_synthetic.yaml", "total_step=soon"], "`total_step` should be a whole number"),
        (
            ["configs/cra/train_cra_synthetic.yaml", "train_set_list=nowhere.txt", "val_set_list=[]"],
            "nowhere.txt: there is no such file",
        ),
        (["configs/cra/train_cra_synthetic.yaml", "device=abacus"], "`device`: 'abacus' is not there"),
        (
            [*SCENE, "train_dataset_cfg.type2sample_weights={scannet: many}"],
            "`train_dataset_cfg.type2sample_weights` should be numbers",
        ),
        ([*SCENE, "depth_range=[a, b]"], "`depth_range` should be near and far in metres"),
        ([*SCENE, "output_root=/proc/nowhere"], "/proc/nowhere: No such file or directory"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, rooms, tmp_path):
    arguments = [
        argument.format(rooms=rooms, out=tmp_path) if "{rooms}" in argument else argument for argument in arguments
    ]
    done = run("run_training.py", "--cfg", *arguments, code=1)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_an_image_that_breaks_in_a_worker_ends_in_one_line(rooms, tmp_path):
    shutil.copytree(rooms / "scannet", tmp_path / "scannet")
    for path in (tmp_path / "scannet" / "train_000" / "color").iterdir():
        if path.stem != "0":
            path.write_bytes(path.read_bytes()[:-100])
    done = run(
        "run_training.py",
        "--cfg",
        "configs/cra/train_cra_synthetic.yaml",
        *small(tmp_path, tmp_path / "out"),
        "train_set_list=[scannet/train_000/black_64]",
        "val_set_list=[]",
        "total_step=2",
        code=1,
    )
    assert "Traceback" not in done.stderr and "the image is truncated" in done.stderr.splitlines()[-1]
    assert (
        "Traceback"
        in run(
            "run_training.py",
            "--cfg",
            "configs/cra/train_cra_synthetic.yaml",
            "data_root=nowhere",
            "--debug",
            "train_set_list=[scannet/a/black_64]",
            code=1,
        ).stderr
    )


def test_evaluating_what_is_no_model(rooms, tmp_path):
    (tmp_path / "model.pth").write_text("no model")
    done = run_apart(
        "run_evaluation.py",
        "--cfg",
        "configs/cra/test_cra_synthetic.yaml",
        "--model-path",
        tmp_path / "model.pth",
        *small(rooms, tmp_path),
        code=1,
    )
    assert done.stderr == f"error: {tmp_path / 'model.pth'}: not a checkpoint\n"


def test_a_config_that_runs_a_model_otherwise_than_it_was_trained_is_warned_of(trained, rooms, tmp_path):
    out, _ = trained
    done = run(
        "run_evaluation.py",
        "--cfg",
        "configs/cra/test_cra_synthetic.yaml",
        "--model-path",
        out / "train_cra_synthetic" / "model_best.pth",
        *small(rooms, tmp_path),
        "val_set_list=[scannet/test_000/black_32]",
        "agg_net_cfg.ptrans_first=true",
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith("warning"))
    assert "was trained with agg_net_cfg" in line and "'ptrans_first': True" in line


HELP = [
    *(["run_training.py"], ["run_evaluation.py"], ["run_rendering.py"]),
    *(["-m", f"dataset.{name}"] for name in ("cache", "check", "synthetic", "synthetic.pack")),
    *(["-m", "dataset.prepare", kind] for kind in ("scannet", "replica", "transforms")),
    *(["-m", "network.convert"], ["-m", "train.settings"]),
    *(
        ["-m", f"benchmarks.{path.stem}"]
        for path in sorted((REPOSITORY / "benchmarks").glob("*.py"))
        if "run_command(main)" in path.read_text()
    ),
]


@pytest.mark.parametrize("command", HELP, ids=lambda command: command[-1])
def test_help_explains_every_option_and_has_an_example(command):
    text = run(*command, "--help").stdout
    options, described = text.partition("options:")[2], re.compile(r"  -\S.*(  +|\n {10,})\S")
    entries = re.findall(r"^  -.*(?:\n {10,}.*)*", options, re.M)
    assert entries and [entry for entry in entries if not described.match(entry)] == []
    assert f"python {' '.join(command)} " in text, "an example"
