"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from dataset.database import held_out_scenes, list_scenes
from dataset.loading import load
from dataset.render_dataset import TrainingSet
from dataset.views import Batch
from network.backend import Backend
from network.init_net import needs
from network.renderer import Renderer
from network.view_renderer import ViewRenderer
from network.weights import Checkpoint, find_weights, load_checkpoint
from train.checkpoint import Checkpoints, checkpoint_content, load_network, load_pretrained, save_checkpoint
from train.evaluator import Evaluation, evaluate, labels_of
from train.few_labels import show_few_labels
from train.objective import Term
from train.pictures import Comparison, PanelWriter, make_panel
from train.processes import Processes
from train.run import (
    build_network,
    choose_device,
    class_colors,
    class_names,
    require_classes,
    require_classes_of,
    run_folder,
    test_sets,
)
from train.schedule import load_optimizer
from train.scores import IMAGE_METRICS, summarise
from train.signals import StopSignals
from train.step import StepLog, TrainingStep
from utils.config import Setting
from utils.errors import UserError
from utils.logging import say, warn

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DEFAULTS = {
    "load_pretrain": Setting(None, str),  # weights to start from; ignored if a run of this name is resumed
    "total_step": Setting(300000, int, minimum=1),  # number of steps
    "val_interval": Setting(10000, int, minimum=1),  # steps between two validations
    "save_interval": Setting(5000, int, minimum=1),  # steps between two checkpoints
    "keep_checkpoints": Setting(1, int, minimum=0),  # number of earlier checkpoints that are kept beside the latest
    "train_log_step": Setting(20, int, minimum=1),  # steps over which logged losses are averaged
    # number of samples with unreadable files that are replaced before the run stops
    "most_unreadable": Setting(100, int, minimum=0),
}


class Stopwatch:
    """Seconds between laps."""

    def __init__(self):
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed


class Trainer:
    """Trains the network of a config. `run` resumes an earlier run of the same name."""

    def __init__(self, cfg, build: Callable[..., Renderer] = build_network, terms: Sequence[Term] = ()):
        """build: (config, device) -> network. terms: further terms of the objective."""
        self.cfg, self.terms = cfg, terms
        self.processes = Processes()
        self.device = self.processes.device(choose_device(cfg))
        self.folder = run_folder(cfg)
        self.checkpoints = Checkpoints(self.folder, cfg.keep_checkpoints)
        held_out = held_out_scenes(list_scenes(cfg.val_set_list, "val_set_list"), cfg.data_root)
        self.training_set = TrainingSet(cfg, cfg.seed, needs(cfg), held_out)
        self.test_sets = test_sets(cfg, validating=True)
        scenes = [*self.training_set.scenes, *[test.scene for test in self.test_sets]]
        require_classes(cfg, scenes)
        self._require_something_to_learn()
        self.scenes, self.colors = scenes, class_colors(cfg, scenes)
        self.network = build(cfg, self.device)
        self.step, self.samples, self.best = 0, 0, -math.inf
        self.unreadable = 0
        self.stopwatch = Stopwatch()
        self.updates: TrainingStep = None  # of `start_or_resume`
        self.writer: SummaryWriter | None = None  # of `_open_log`, on rank 0
        self.log: deque[StepLog] = deque(maxlen=cfg.train_log_step)
        self.stop = StopSignals()

    def run(self) -> None:
        """Train to `total_step`. Raise UserError if the loss is not finite, or too many samples cannot be read."""
        with self.processes.together(self.device):
            self.start_or_resume()
            if self.processes.leads:
                show_few_labels(self.training_set, self.colors, self.folder)
            with self.stop.listening():
                self._open_log()
                self.network.train()
                self._train()
            if self.writer is not None:
                self.writer.close()
        self._say_how_it_ended()

    def _say_how_it_ended(self) -> None:
        latest, best = self.checkpoints.latest, self.checkpoints.best
        if self.stop.cause is not None:
            say(f"{self.stop.cause}: saved step {self.step} in {latest}; the same command goes on from there")
        else:
            also = f", the best {best}" if best.is_file() else ""
            say(f"trained {self.step} steps; the latest model is {latest}{also}")

    def _train(self) -> None:
        cfg, processes = self.cfg, self.processes
        self.stopwatch.lap()
        with tqdm(
            total=cfg.total_step, initial=self.step, desc=cfg.name, unit="step", disable=not processes.leads
        ) as progress:
            for batch in self._batches():
                self._count_unreadable(batch)
                self.log.append(self.train_step(batch))
                self.step += 1
                self.samples += processes.size
                progress.update()
                stops = processes.any(self.stop.cause is not None)
                last = self.step == cfg.total_step or stops
                if self.step % cfg.train_log_step == 0 or last:
                    self._report(progress)
                if self.step % cfg.val_interval == 0 or self.step == cfg.total_step:
                    self._validate()
                if self.step % cfg.save_interval == 0 or last:
                    self._save()
                if stops:
                    self.stop.cause = self.stop.cause or "another process was told to stop"
                    break

    def _batches(self):
        """Yield this process's batches. All processes share one sequence of samples; a step takes the next `size` of
        them."""
        size = self.processes.size
        first = self.samples + self.processes.rank
        left = self.cfg.total_step - self.step
        return load(self.training_set, range(first, first + left * size, size), self.cfg.worker_num, self.device)

    def train_step(self, batch: Batch) -> StepLog:
        """Update the weights once. Random numbers are seeded by the config's seed and the number of the sample."""
        sample = self.samples + self.processes.rank
        return self.updates(batch, self.step, self.cfg.seed * 1_000_003 + sample)

    def _count_unreadable(self, batch: Batch) -> None:
        self.unreadable += len(batch.problems)
        for problem in batch.problems:
            warn(f"{problem}; another sample takes its place")
        if self.unreadable > self.cfg.most_unreadable:
            raise UserError(
                f"{self.unreadable} samples could not be read, more than most_unreadable allows "
                f"({self.cfg.most_unreadable}); the last one: {batch.problems[-1]}"
            )

    def _require_something_to_learn(self) -> None:
        if "render" in self.cfg.loss:
            return
        for scene in self.training_set.scenes:
            if scene.labels is None:
                raise UserError(f"{scene.name}: has no labels, and `loss` asks for nothing else; add render to it")

    def _open_log(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self.writer = (
            SummaryWriter(str(self.folder / "logs"), purge_step=self.step + 1) if self.processes.leads else None
        )

    def start_or_resume(self) -> None:
        """Load the weights to start from, or those of the newest checkpoint, and build what updates them."""
        checkpoint = self.checkpoints.newest()
        self._load(checkpoint)
        has_labels = any(scene.labels is not None for scene in self.training_set.scenes)
        processes = self.processes if self.processes.several else None
        backend = Backend.for_training(self.cfg, self.device)
        self.updates = TrainingStep(self.network, self.cfg, backend, processes, has_labels, self.terms)
        if checkpoint is not None:
            try:
                load_optimizer(self.updates.optimizer, checkpoint.optimizer)
            except UserError as error:
                raise UserError(f"{checkpoint.path}: {error}") from None
        if self.updates.averaged is not None:
            self.updates.averaged.restart(None if checkpoint is None else checkpoint.averaged, self.network)

    @property
    def model(self) -> Renderer:
        """Return the network to render with and to save: that of the averaged weights, if there is one."""
        return self.network if self.updates.averaged is None else self.updates.averaged.network

    def _load(self, checkpoint: Checkpoint | None) -> None:
        """Load weights and counters of a run to resume; None: the weights that a new run starts from."""
        if checkpoint is not None:
            load_network(self.network, checkpoint.as_trained())
            require_classes_of(checkpoint, self.scenes)
            self.step, self.samples, self.best = checkpoint.step, checkpoint.samples, checkpoint.best
            say(
                f"goes on from step {self.step} of {checkpoint.path}"
                + (f" (best {self.cfg.key_metric_name} so far: {self.best:.4f})" if math.isfinite(self.best) else "")
            )
            return
        self.network.init_net.load_weights(self.cfg)
        if self.cfg.load_pretrain is not None:
            path = find_weights("load_pretrain", self.cfg.load_pretrain, "starts from random weights")
            pretrained = load_checkpoint(path)
            report = load_pretrained(self.network, pretrained, class_names(self.scenes))
            say(f"starts from {path}: {report}")
            if report.classes is not None and report.classes.new:
                warn(
                    f"{path} knows no class {', '.join(report.classes.new)}, but {', '.join(pretrained.classes)}; check the names"
                )

    def _report(self, progress: tqdm) -> None:
        """Fetch the losses of the latest steps from the device, check them, show and log their means."""
        totals = self._checked_totals()
        if not self.processes.leads:
            self.log.clear()
            return
        last, data = self.log[-1], self.cfg.train_dataset_cfg
        means = {
            name: torch.stack([entry.losses[name] for entry in self.log if name in entry.losses]).mean().item()
            for name in last.losses
        }
        measures = {
            name: torch.stack([entry.measures[name] for entry in self.log]).nanmean().item() for name in last.measures
        }
        rays = len(self.log) * self.processes.size * data.queries_per_step * data.train_ray_num / self.stopwatch.lap()
        progress.set_postfix(
            loss=f"{sum(means.values()):.4f}", psnr=f"{measures['psnr']:.2f}", rays=f"{rays:,.0f}/s", refresh=False
        )
        for name, value in {
            **{f"loss/{name}": value for name, value in means.items()},
            "loss/total": sum(totals) / len(totals),
            **{f"train/{name}": value for name, value in measures.items() if math.isfinite(value)},
            "train/grad_norm": last.grad_norm.item(),
            "train/rays_per_second": rays,
            "train/lr": float(self.updates.optimizer.param_groups[0]["lr"]),
        }.items():
            self.writer.add_scalar(name, value, self.step)
        self.log.clear()

    def _validate(self) -> None:
        """Score the test sets, shared among the processes; save `model_best.pth` if the key metric is the best so
        far."""
        if not self.test_sets:
            return
        self._checked_totals()
        labels = labels_of(self.test_sets)
        with PanelWriter(self.folder / "val", self.colors, labels) as write_panel:

            def show(comparison: Comparison) -> None:
                write_panel(comparison)
                if comparison.first:  # always scored by rank 0
                    panel = make_panel(comparison, self.colors, labels)
                    self.writer.add_image(f"val/{comparison.batch.scene}", panel, self.step, dataformats="HWC")

            panels = any(name.startswith("vis") for name in self.cfg.val_metric)
            evaluation = evaluate(
                ViewRenderer(self.model, Backend.for_rendering(self.cfg.renderer, self.device), self.cfg.ray_batch_num),
                self.test_sets,
                self.device,
                self.cfg.worker_num,
                on_comparison=show if panels else None,
                share=(self.processes.rank, self.processes.size),
            )
        self.network.train()
        parts = self.processes.gather(evaluation)
        if parts is not None:
            self._judge(Evaluation.merge(parts))
        self.stopwatch.lap()  # exclude validation from the rays per second

    def _judge(self, evaluation: Evaluation) -> None:
        value = evaluation.key_metric(self.cfg.key_metric_name)
        self._log_validation(evaluation, value)
        if value > self.best:
            self.best = value
            save_checkpoint(self.checkpoints.best, self._content())

    def _checked_totals(self) -> list[float]:
        """Return the losses of the steps since the last report. Raise UserError for the first one that is not finite.

        Called before a model is validated or saved.
        """
        if not self.log:
            return []
        totals = torch.stack([sum(entry.losses.values()) for entry in self.log]).tolist()
        for number, (total, entry) in enumerate(zip(totals, self.log, strict=True), self.step - len(self.log) + 1):
            if not math.isfinite(total):
                latest = self.checkpoints.latest
                kept = f"{latest} is as it was saved last" if latest.is_file() else "nothing was saved yet"
                raise UserError(
                    f"step {number}: the loss is {total} ({entry.frame}); training stops, {kept}. "
                    "Lower lr_cfg.lr_init, or check that frame"
                )
        return totals

    def _log_validation(self, evaluation: Evaluation, value: float) -> None:
        summary = summarise(evaluation.network_scores)
        numbers = {name: summary[name] for name in IMAGE_METRICS if name in summary} | summary.get("per_image", {})
        for name, number in numbers.items():
            self.writer.add_scalar(f"val/{name}", number, self.step)
        mark = " (best so far)" if value > self.best else ""
        say(f"step {self.step}: " + ", ".join(f"{name} {number:.4g}" for name, number in numbers.items()) + mark)

    def _save(self) -> None:
        self._checked_totals()
        if self.processes.leads:
            self.checkpoints.save(self._content())

    def _content(self) -> dict:
        return checkpoint_content(
            self.model,
            self.updates.optimizer,
            step=self.step,
            samples=self.samples,
            best=self.best,
            config=self.cfg,
            classes=class_names(self.scenes),
            trained=None if self.model is self.network else self.network,
        )
