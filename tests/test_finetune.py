"""The benchmark of fine-tuning: a whole run of it on tiny rooms."""

import json

from programs import run_program

SCENE, OTHER = "scannet/test_000/black_64", "scannet/val_000/black_64"
NETWORK, NUMBERS = "S-Ray+", {"psnr", "ssim", "miou", "total_accuracy", "depth_median"}


def test_a_scene_is_fine_tuned_and_scored_before_by_step_and_elsewhere(rooms, stand_in, tmp_path):
    out = tmp_path / "out"

    def call(minutes) -> str:
        done = run_program(
            "-m", "benchmarks.finetune", "--data", rooms, "--out", out, "--scenes", SCENE, "--steps", "4", "--every", "2",
            "--workers", "0", "--minutes", minutes, "--variants", "few:few_labels.frames=0.1", "--elsewhere", OTHER,
            "device=cpu", f"load_pretrain={stand_in / 'nodepth.pth'}", "train_dataset_cfg.patch=[16,24]",
            "train_dataset_cfg.min_wn=3", "train_dataset_cfg.max_wn=4",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert f"## {SCENE}" in call(0) and not (out / "finetune.json").exists(), "there was no time for anything"
    said = call(10)
    (run,) = json.loads((out / "finetune.json").read_text()).values()
    assert [row["step"] for row in run["curve"]] == [2, 4]
    assert all(row.keys() >= NUMBERS and row["seconds"] > 0 for row in run["curve"])
    assert run["elsewhere"].keys() == run["elsewhere_before"].keys() == {NETWORK}
    assert run["elsewhere"][NETWORK]["psnr"] != run["elsewhere_before"][NETWORK]["psnr"]
    assert run["before"].keys() > {NETWORK, "nearest frame with labels, copied"}
    assert "in 4 frames of 1 scenes" in (out / "few_test_000_0.curve.log").read_text()

    table = (out / "finetune.md").read_text()
    assert table.strip() in said
    rows = [line for line in table.splitlines() if line.startswith("| few")]
    psnr = {key: run[key][NETWORK]["psnr"] for key in ("before", "elsewhere_before", "elsewhere")}
    for name, value in (
        ("few: S-Ray+, before | – | –", psnr["before"]),
        ("few: S-Ray+, elsewhere, before | – | –", psnr["elsewhere_before"]),
        ("few: S-Ray+, elsewhere, after | – | –", psnr["elsewhere"]),
        (f"few | 4 | {run['curve'][1]['seconds']:.0f}", run["curve"][1]["psnr"]),
    ):
        assert sum(row.startswith(f"| {name} | {value:.2f} |") for row in rows) == 1, name
    assert len(rows) == len(run["before"]) + 2 + 2

    before, again = (out / "finetune.json").read_bytes(), call(0)
    assert all(row in again for row in rows) and "done" not in again
    assert (out / "finetune.json").read_bytes() == before, "nothing is made again"


def test_too_few_steps_to_measure_end_in_one_line(tmp_path):
    done = run_program(
        "-m", "benchmarks.finetune", "--data", tmp_path, "--out", tmp_path / "out", "--scenes", SCENE, "--steps", "1"
    )
    assert done.returncode == 1 and done.stderr.startswith("error: --steps should be 2 at least")
