"""Processes train together (gloo, on the CPU): two as one would that averages their gradients, four until one is
killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from programs import REPOSITORY

from network.backend import Backend
from network.view_renderer import ViewRenderer
from network.weights import load_checkpoint
from train.evaluator import Evaluation, evaluate
from train.run import build_network
from train.scores import summarise
from train.step import TrainingStep
from train.trainer import Trainer
from utils.config import plain

SCRIPTS = REPOSITORY / "tests/scripts"


def start(script, *arguments, processes=2) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(running: subprocess.Popen, timeout) -> subprocess.CompletedProcess:
    """Waits so many seconds; then ends it and the processes that it started."""
    try:
        output = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        running.terminate()  # torchrun ends its processes
        running.communicate()
        raise
    return subprocess.CompletedProcess(running.args, running.returncode, *output)


def torchrun(script, *arguments, processes=2, timeout=150) -> subprocess.CompletedProcess:
    return finish(start(script, *arguments, processes=processes), timeout)


@pytest.fixture
def one_thread():
    """As in each of the two processes: with several, sums are made in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(cfg, path):
    path.write_text(yaml.safe_dump(json.loads(json.dumps(plain(cfg)))))
    return path


def test_two_processes_equal_one_that_averages_their_gradients(config, tmp_path, one_thread):
    # not Adam, which makes steps of gradients that are only rounding
    plain_steps = {"optimizer_type": "sgd", "lr_cfg": {"lr_init": 1e-2}}
    cfg = config(name="two", total_step=3, val_interval=3, save_interval=3, **plain_steps)
    result = torchrun("run_training.py", "--cfg", written(cfg, tmp_path / "two.yaml"))
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("trained 3 steps") == 1  # one of them speaks
    trainer = Trainer(config(name="one"))
    network = build_network(cfg, torch.device("cpu")).train()
    step = TrainingStep(network, cfg, Backend.for_training(cfg, torch.device("cpu")))
    for number in range(3):
        gradients = []
        for sample in (2 * number, 2 * number + 1):
            batch = trainer.training_set[sample].to("cpu")
            generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + sample)
            draws = network.sampler.draw(batch.pixels.shape[:2].numel(), generator)
            step.differentiate(batch.references, batch.query, batch.pixels, draws)
            gradients.append(step.gradients.clone())
        step.gradients.copy_(sum(gradients) / 2)
        step.update()
    two = load_checkpoint(tmp_path / "model" / "two" / "model.pth")
    assert (two.step, two.samples) == (3, 6)
    start = build_network(cfg, torch.device("cpu")).state_dict()
    for name, value in network.state_dict().items():
        assert (two.network[name] - value).norm() < 0.002 * (value - start[name]).norm() + 1e-6, name

    # its checkpoint goes on in one process, with the samples that come next
    alone = Trainer(config(name="two", total_step=4, **plain_steps))
    alone.run()
    assert (alone.step, alone.samples) == (4, 7)


def test_shares_of_an_evaluation_merge_into_the_whole(config, rooms):
    trainer = Trainer(config(val_set_list=["scannet/val_000/black_32", "scannet/test_000/black_32"]))
    renderer = ViewRenderer(trainer.network, Backend.for_rendering("exact", torch.device("cpu")))
    whole = evaluate(renderer, trainer.test_sets, "cpu", 0)
    parts = [evaluate(renderer, trainer.test_sets, "cpu", 0, share=(i, 2)) for i in range(2)]
    merged = Evaluation.merge(parts)
    assert (merged.pixels, merged.ignored) == (whole.pixels, whole.ignored)
    for method, scores in whole.scores.items():
        assert merged.scores[method].keys() == scores.keys()
        for scene, score in scores.items():
            assert merged.scores[method][scene].psnr == score.psnr
        assert summarise(merged.scores[method]) == summarise(scores)


def test_all_processes_stop_when_one_fails(config, tmp_path):
    cfg = config(name="failing", total_step=2000, train_log_step=1, lr_cfg={"lr_init": 1e30})
    result = torchrun("run_training.py", "--cfg", written(cfg, tmp_path / "failing.yaml"))
    assert result.returncode != 0
    assert "the loss is" in result.stderr


def test_nothing_watches_for_failures_any_more_once_the_processes_have_ended():
    """A thread within torch aborts its process when Python ends, and torchrun then ends the others."""
    result = torchrun(SCRIPTS / "ends.py", timeout=60)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("processes, rank, kind", [(2, 0, "UserError"), (2, 1, "UserError"), (4, 2, "RuntimeError")])
def test_a_process_that_fails_between_exchanges_ends_the_others(tmp_path, processes, rank, kind):
    """It says why; the others, which wait for it, say nothing."""
    result = torchrun(SCRIPTS / "fails.py", rank, kind, processes=processes, timeout=60)
    assert result.returncode != 0
    assert "the disk is on fire" in result.stderr and "lost another one" not in result.stderr
    for other in set(range(processes)) - {rank}:
        assert f"[rank{other}]" not in result.stderr  # where torch puts what nobody caught


@pytest.mark.slow
def test_four_processes_end_when_one_is_killed_and_two_go_on(config, tmp_path):
    """Killed from outside a process says nothing: torchrun names it, and how it ended."""
    checkpoint = tmp_path / "model" / "four" / "model.pth"
    endless = config(name="four", total_step=10**6, val_set_list=[], save_interval=2)
    cfg = written(endless, tmp_path / "endless.yaml")
    running = start(SCRIPTS / "trains.py", tmp_path, "--cfg", cfg, processes=4)
    begin = time.monotonic()
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < begin + 150:
        time.sleep(0.2)
    pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in range(4)]
    os.kill(pids[2], signal.SIGKILL)
    result = finish(running, timeout=60)
    assert result.returncode != 0
    assert "SIGKILL" in result.stderr and re.search(rf"exitcode\s*: -9 \(pid: {pids[2]}\)", result.stderr)
    assert not any(is_alive(pid) for pid in pids)
    four = load_checkpoint(checkpoint)
    assert four.samples == 4 * four.step

    cfg = config(name="four", total_step=four.step + 2, val_set_list=[], save_interval=2)
    result = torchrun("run_training.py", "--cfg", written(cfg, tmp_path / "rest.yaml"))
    assert result.returncode == 0, result.stderr[-2000:]
    two = load_checkpoint(checkpoint)
    assert (two.step, two.samples) == (four.step + 2, four.samples + 4)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
