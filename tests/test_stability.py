"""The benchmark of stability: what it reads, what it makes of it, and a whole run of it."""

import json
from argparse import Namespace

import pytest
from programs import run_program

from benchmarks import stability
from benchmarks.runs import parse, parse_variant
from benchmarks.stability import Commands, Results, Run, step_of_leaving, table
from utils.cli import command_parser
from utils.errors import UserError


def test_variants_are_a_name_and_changes_between_commas():
    assert parse_variant("as_it_is", "a.yaml") == ("as_it_is", "a.yaml", ())
    entry = "range:depth_range=[0.5,10],lr_cfg.lr_init=1e-3, cfg=b.yaml"
    assert parse_variant(entry, "a.yaml") == ("range", "b.yaml", ("depth_range=[0.5,10]", "lr_cfg.lr_init=1e-3"))
    for wrong in ("", "a/b", "name:key", ":key=1"):
        with pytest.raises(UserError, match="should be a name"):
            parse_variant(wrong, "a.yaml")


def test_kinds_of_test_rooms_are_no_changes_of_the_config(monkeypatch):
    given = [
        "--data",
        "R",
        "--out",
        "O",
        "--tests",
        "models=m.txt",
        "boxes=b.txt",
        "--variants",
        "a:x=1",
        "lr_cfg.lr_init=1e-3",
    ]
    monkeypatch.setattr("sys.argv", ["stability", *given])
    parser = command_parser("stability", "")
    parser.add_argument("--tests", nargs="+")
    args = parse(parser, assignments=("tests",))
    assert args.tests == ["models=m.txt", "boxes=b.txt"]
    assert args.variants == ["a:x=1"] and args.overrides == ["lr_cfg.lr_init=1e-3"]


def test_a_variant_can_train_on_rooms_of_its_own(tmp_path):
    args = Namespace(out=tmp_path, data=tmp_path / "rooms", steps=9, workers=2, overrides=[], tests={"test": ["a"]})

    def trained_on(*changes):
        command = Commands(args, "a").training(Run("a", "auto", 0, "c.yaml", changes))
        return dict(part.split("=", 1) for part in command if "=" in part)["train_set_list"]  # the last one counts

    assert trained_on() == str(tmp_path / "rooms" / "train.txt") and trained_on("train_set_list=b.txt") == "b.txt"


def test_baselines_are_those_of_the_first_run_also_when_another_ends_before_it(tmp_path, monkeypatch):
    class LastFirst:
        def __init__(self, at_once, minutes): ...

        def each(self, work, jobs):
            for job in reversed(jobs):
                work(job)

        def run(self, command, log):
            return True

    def scored(args, run):
        methods = {"net": {"a": {"psnr": 20.0}}} | ({"splat": {"a": {"psnr": 30.0}}} if run.name == "x_auto_0" else {})
        return {"network": "net", "scenes_of_methods": methods}

    monkeypatch.setattr(stability, "Launcher", LastFirst)
    monkeypatch.setattr(stability, "read_results", scored)
    monkeypatch.setattr(stability, "numbers_of", lambda args, run: {"tests": {"test": {"psnr": 20.0}}, "left_near": 1})
    args = Namespace(
        out=tmp_path, data=tmp_path, steps=9, workers=2, at_once=1, minutes=1, overrides=[], tests={"test": ["a"]}
    )
    results = Results(tmp_path / "stability.json")
    stability.carry_out(args, [Run("x", "auto", seed, "c.yaml", ()) for seed in (0, 1)], results)
    assert set(results.runs) == {"x_auto_0", "x_auto_1"} and results.baselines["test"]["splat"]["psnr"] == 30


def test_the_near_plane_is_left_when_no_later_step_is_there_again():
    assert step_of_leaving([(1, 0.9), (2, 0.01), (3, 0.5), (4, 0.02), (5, 0.0)]) == 4
    assert step_of_leaving([(1, 0.0)]) == 1 and step_of_leaving([(1, 0.9), (2, 0.8)]) is None
    assert step_of_leaving([]) is None


def test_the_table_has_means_and_ends_of_each_variant_and_skips_what_is_not_finished(tmp_path):
    runs = [Run(name, "auto", seed, "c.yaml", ("a=1",)) for seed in (0, 1) for name in ("plus", "other", "unfinished")]
    numbers = {"ssim": 0.5, "miou": 0.4, "depth_median": 0.03}
    rows = {"plus_auto_0": (20.0, 100), "plus_auto_1": (22.0, None), "other_auto_1": (25.0, 7)}
    results = Results(
        tmp_path / "stability.json",
        {
            name: {"tests": {"test": {"psnr": psnr, **numbers}}, "left_near": step}
            for name, (psnr, step) in rows.items()
        },
        {"test": {"splat": {"psnr": 36.6, "depth_median": 0.003}}},
    )
    results.save()
    text = table(
        Namespace(steps=9, overrides=["x=1"], data="rooms", tests={"test": ["a"]}), runs, Results.load(results.path)
    )
    assert (
        "| plus | auto | 2 | 21.00 (20.00 to 22.00) | – | – | 0.500 (0.500 to 0.500) |" in text
        and "| 100, never |" in text
    )
    assert "| other | auto | 1 | 25.00 |" in text and "| unfinished |" not in text
    assert (
        "| splat | – | – | 36.60 | – | – | – | – | – | – | – | 0.0030 | – |" in text and "- plus: `c.yaml a=1`" in text
    )


def test_a_call_that_was_cut_goes_on(rooms, tmp_path):
    """A call without any minutes is one that is cut before its first run."""
    out = tmp_path / "out"

    def call(minutes, *seeds):
        done = run_program(
            "-m", "benchmarks.stability", "--data", rooms, "--out", out, "--seeds", *seeds, "--steps", "4",
            "--workers", "0", "--minutes", minutes, "--variants", "log:sample_spacing=log", "device=cpu",
            "train_dataset_cfg.train_ray_num=8", "train_dataset_cfg.min_wn=3", "train_dataset_cfg.max_wn=4",
            "depth_sample_num=8", "fine_depth_sample_num=8",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "2 of 2 runs are not finished" in call(0, 0, 1)
    assert "| log | auto | 1 |" in call(10, 0)
    content = json.loads((out / "stability.json").read_text())
    assert "splat of all references, no network" in content["baselines"]["test"]
    assert set(content["runs"]) == {"log_auto_0"} and (out / "worst_and_best_log_auto.jpg").is_file()
    before = (out / "stability.json").read_bytes()
    said = call(0, 0, 1)
    assert "1 of 2 runs are not finished; the same command goes on: log_auto_1" in said and "| log | auto | 1 |" in said
    call(10, 0)
    assert (out / "stability.json").read_bytes() == before, "nothing is made again"


def test_rooms_that_are_not_there_end_in_one_line(tmp_path):
    done = run_program("-m", "benchmarks.stability", "--data", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "has no train.txt" in done.stderr
