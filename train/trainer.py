"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from dataset.loading import load
from dataset.render_dataset import TrainingSet, held_out_scenes, list_scenes
from dataset.views import Batch, Views
from network.init_net import needs
from network.renderer import PADDING, Prediction, pad_views
from network.weights import load_checkpoint, load_mvsnet
from train.checkpoint import load_network, save_checkpoint
from train.evaluator import NETWORK, Evaluation, evaluate, labels_of
from train.losses import color_loss, depth_loss, reprojection_loss, semantic_loss
from train.pictures import Frame, PanelWriter, make_panel
from train.run import build_network, choose_device, class_colors, require_classes, run_folder, test_sets
from train.schedule import build_optimizer, learning_rate, set_learning_rate
from train.scores import summarise
from utils.config import Setting, plain
from utils.errors import UserError
from utils.files import find_file
from utils.logging import say, warn

DEFAULTS = {
    "loss": ["render", "semantic"],
    "render_loss_scale": Setting(0.75, float, minimum=0),
    "semantic_loss_scale": Setting(0.25, float, minimum=0),
    "use_nr_fine_loss": True,  # colour loss of the fine pass too
    "depth_loss_scale": Setting(1.0, float, minimum=0),  # where the front end predicts depth and is trained
    "use_ray_mask": True,  # only rays that enough views see have a colour loss
    "load_pretrain": Setting(None, str),  # weights to start from; a run of this name goes on instead
    "total_step": Setting(300000, int, minimum=1),
    "val_interval": Setting(10000, int, minimum=1),
    "save_interval": Setting(5000, int, minimum=1),
    "train_log_step": Setting(20, int, minimum=1),
    "max_grad_norm": Setting(None, float, minimum=0),
}
LOSSES = ("render", "semantic")


class StepLog(NamedTuple):
    """Of one step, still on the device: the losses by name, PSNR, gradient norm, and which frame it was."""

    losses: dict[str, torch.Tensor]
    psnr: torch.Tensor
    grad_norm: torch.Tensor
    frame: str


class Stopwatch:
    """Seconds between laps."""

    def __init__(self):
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed


class Trainer:
    """Trains what a config describes; `run` goes on where an earlier run of the same name stopped."""

    def __init__(self, cfg):
        unknown = [name for name in cfg.loss if name not in LOSSES]
        if unknown or not cfg.loss:
            raise UserError(f"`loss` should list some of {', '.join(LOSSES)}, but is {list(cfg.loss)}")
        self.cfg = cfg
        self.device = choose_device(cfg)
        self.folder = run_folder(cfg)
        self.latest, self.best_file = self.folder / "model.pth", self.folder / "model_best.pth"
        held_out = held_out_scenes(list_scenes(cfg.val_set_list, "val_set_list"))
        self.training_set = TrainingSet(cfg, cfg.seed, needs(cfg), held_out)
        self.test_sets = test_sets(cfg)
        scenes = [*self.training_set.scenes, *[test.scene for test in self.test_sets]]
        require_classes(cfg, scenes)
        self.colors = class_colors(cfg, scenes)
        self.network = build_network(cfg, self.device)
        self.optimizer = build_optimizer(self.network, cfg)
        self.step, self.best = 0, -math.inf
        self.log: deque[StepLog] = deque(maxlen=cfg.train_log_step)
        self.stopped_by: str | None = None

    def run(self) -> None:
        """Trains to `total_step`. Raises UserError if the loss is no number any more."""
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self._start_or_resume()
        cfg = self.cfg
        self._listen_to_signals()
        self.writer = SummaryWriter(str(self.folder / "logs"), purge_step=self.step + 1)
        self.network.train()
        self.stopwatch = Stopwatch()
        batches = load(self.training_set, range(self.step, cfg.total_step), cfg.worker_num, self.device)
        with tqdm(total=cfg.total_step, initial=self.step, desc=cfg.name, unit="step") as progress:
            for batch in batches:
                self.log.append(self._train_step(batch))
                self.step += 1
                progress.update()
                last = self.step == cfg.total_step or self.stopped_by is not None
                if self.step % cfg.train_log_step == 0 or last:
                    self._report(progress)
                if self.step % cfg.val_interval == 0 or self.step == cfg.total_step:
                    self._validate()
                if self.step % cfg.save_interval == 0 or last:
                    self._save(self.latest)
                if self.stopped_by is not None:
                    break
        self.writer.close()
        if self.stopped_by is not None:
            say(f"{self.stopped_by}: saved step {self.step} in {self.latest}; the same command goes on from there")
        else:
            say(
                f"trained {self.step} steps; the latest model is {self.latest}"
                + (f", the best {self.best_file}" if self.best_file.is_file() else "")
            )

    def _start_or_resume(self) -> None:
        if self.latest.is_file():
            checkpoint = load_checkpoint(self.latest)
            load_network(self.network, checkpoint)
            try:
                self.optimizer.load_state_dict(checkpoint.optimizer)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(
                    f"{self.latest}: its optimiser's state does not fit this config; give the run another name"
                ) from None
            self.step, self.best = checkpoint.step, checkpoint.best
            say(
                f"goes on from step {self.step} of {self.latest}"
                + (f" (best {self.cfg.key_metric_name} so far: {self.best:.4f})" if math.isfinite(self.best) else "")
            )
            return
        if self.cfg.init_net_type == "cost_volume":
            self._load_mvsnet()
        if self.cfg.load_pretrain is not None:
            path = self._find_weights("load_pretrain", self.cfg.load_pretrain, "starts from random weights")
            report = load_network(self.network, load_checkpoint(path), allow_new_layers=True)
            say(f"starts from {path}: {report}")

    def _load_mvsnet(self) -> None:
        """MVSNet's published weights; a frozen one is of no use without."""
        weights, frozen = self.cfg.mvsnet.weights, self.cfg.mvsnet.frozen
        if weights is not None:
            load_mvsnet(
                self.network.init_net.mvsnet, self._find_weights("mvsnet.weights", weights, "trains it from scratch")
            )
        elif frozen and self.cfg.load_pretrain is None:
            raise UserError(
                "`mvsnet.frozen` is true, but there are no mvsnet.weights; name them, or set mvsnet.frozen=false"
            )

    @staticmethod
    def _find_weights(key: str, name: str, without: str) -> Path:
        try:
            return find_file(name)
        except UserError:
            raise UserError(f"`{key}`: there is no file {name}; {key}=null {without}") from None

    def _train_step(self, batch: Batch) -> StepLog:
        """One update. Nothing here waits for the device."""
        cfg = self.cfg
        set_learning_rate(self.optimizer, learning_rate(self.step, cfg.lr_cfg), cfg.lr_cfg.scale_new)
        # Fine depths are drawn from the seed and the step alone: a resumed run draws the same.
        generator = torch.Generator(self.device).manual_seed(cfg.seed * 1_000_003 + self.step)
        draws = self.network.draw(batch.pixels.shape[:2].numel(), generator)
        prediction = self.network(batch.references, batch.query.cameras, batch.pixels, draws)
        losses, psnr = self._losses(prediction, batch)
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        norm = clip_grad_norm_(self.network.parameters(), cfg.max_grad_norm or math.inf)
        self.optimizer.step()
        detached = {name: loss.detach() for name, loss in losses.items()}
        return StepLog(detached, psnr, norm.detach(), f"{batch.scene}, frame {batch.frame}")

    def _losses(self, prediction: Prediction, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The losses by name, and the PSNR of the final colours."""
        cfg, query = self.cfg, batch.query
        x, y = batch.pixels.long().unbind(-1)
        view = torch.arange(len(query), device=x.device)[:, None]
        color = query.images[view, :, y, x].flatten(0, 1)
        scored = prediction.coarse.scored if cfg.use_ray_mask else torch.ones_like(prediction.coarse.scored)
        passes = {"coarse": prediction.coarse, "fine": prediction.fine}
        losses = {}
        for name, rendering in passes.items():
            if rendering is None:
                continue
            if "render" in cfg.loss and (name == "coarse" or cfg.use_nr_fine_loss):
                losses[f"color_{name}"] = cfg.render_loss_scale * color_loss(rendering.color, color, scored)
            if "semantic" in cfg.loss and rendering.logits is not None and query.labels is not None:
                losses[f"semantic_{name}"] = cfg.semantic_loss_scale * semantic_loss(
                    rendering.logits, query.labels[view, y, x].flatten(), cfg.num_classes
                )
        if prediction.reference_depth is not None and prediction.reference_depth.requires_grad:
            losses["depth"] = cfg.depth_loss_scale * self._depth_loss(prediction.reference_depth, batch.references)
        if not losses:
            raise UserError(f"{batch.scene}: has no labels, and `loss` asks for nothing else; add render to it")
        error = (prediction.final.color.detach().clamp(0, 1) - color).square().mean()
        return losses, -10 * torch.log10(error.clamp_min(1e-6))

    @staticmethod
    def _depth_loss(predicted: torch.Tensor, references: Views) -> torch.Tensor:
        """By the sensor where the scene has one, else by how well the references show each other."""
        padded = pad_views(references, PADDING)
        if padded.depth is not None:
            return depth_loss(predicted, padded.depth)
        return reprojection_loss(predicted, padded)

    def _report(self, progress: tqdm) -> None:
        """Fetches the latest steps from the device, checks them, shows and logs their means."""
        totals = self._checked_totals()
        means = {
            name: torch.stack([entry.losses[name] for entry in self.log if name in entry.losses]).mean().item()
            for name in self.log[-1].losses
        }
        psnr = torch.stack([entry.psnr for entry in self.log]).mean().item()
        rays = len(self.log) * self.cfg.train_dataset_cfg.train_ray_num / self.stopwatch.lap()
        progress.set_postfix(
            loss=f"{sum(means.values()):.4f}", psnr=f"{psnr:.2f}", rays=f"{rays:,.0f}/s", refresh=False
        )
        for name, value in {
            **{f"loss/{name}": value for name, value in means.items()},
            "loss/total": sum(totals) / len(totals),
            "train/psnr": psnr,
            "train/grad_norm": self.log[-1].grad_norm.item(),
            "train/rays_per_second": rays,
            "train/lr": self.optimizer.param_groups[0]["lr"],
        }.items():
            self.writer.add_scalar(name, value, self.step)
        self.log.clear()

    def _validate(self) -> None:
        """Scores the test sets; a new best key metric saves `model_best.pth`."""
        if not self.test_sets:
            return
        self._checked_totals()
        labels = labels_of(self.test_sets)
        with PanelWriter(self.folder / "val", self.colors, labels) as write_panel:

            def show(frame: Frame) -> None:
                write_panel(frame)
                if frame.index == 0:
                    panel = make_panel(frame, self.colors, labels)
                    self.writer.add_image(f"val/{frame.batch.scene}", panel, self.step, dataformats="HWC")

            panels = any(name.startswith("vis") for name in self.cfg.val_metric)
            evaluation = evaluate(
                self.network, self.test_sets, self.device, self.cfg.worker_num, on_frame=show if panels else None
            )
        value = evaluation.key_metric(self.cfg.key_metric_name)
        self._log_validation(evaluation, value)
        if value > self.best:
            self.best = value
            self._save(self.best_file)
        self.stopwatch.lap()  # its time is not the training's

    def _checked_totals(self) -> list[float]:
        """The losses of the steps since the last report; no model is judged or saved before they were checked.

        Raises UserError for the first one that is no number.
        """
        if not self.log:
            return []
        totals = torch.stack([sum(entry.losses.values()) for entry in self.log]).tolist()
        for number, (total, entry) in enumerate(zip(totals, self.log, strict=True), self.step - len(self.log) + 1):
            if not math.isfinite(total):
                kept = f"{self.latest} is as it was saved last" if self.latest.is_file() else "nothing was saved yet"
                raise UserError(
                    f"step {number}: the loss is {total} ({entry.frame}); training stops, {kept}. "
                    "Lower lr_cfg.lr_init, or check that frame"
                )
        return totals

    def _log_validation(self, evaluation: Evaluation, value: float) -> None:
        summary = summarise(evaluation.scores[NETWORK])
        numbers = {"psnr": summary["psnr"], "ssim": summary["ssim"], **summary.get("per_image", {})}
        for name, number in numbers.items():
            self.writer.add_scalar(f"val/{name}", number, self.step)
        mark = " (best so far)" if value > self.best else ""
        say(f"step {self.step}: " + ", ".join(f"{name} {number:.4g}" for name, number in numbers.items()) + mark)

    def _save(self, path: Path) -> None:
        self._checked_totals()
        save_checkpoint(path, self.network, self.optimizer, self.step, self.best, plain(self.cfg))

    def _listen_to_signals(self) -> None:
        """SIGINT and SIGTERM finish the step and save; a second one ends at once."""

        def note(number, _frame):
            if self.stopped_by is not None:
                raise KeyboardInterrupt
            self.stopped_by = signal.Signals(number).name
            warn(f"{self.stopped_by}: finishing this step, then saving")

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, note)
        except ValueError:
            pass  # not in the main thread: whoever runs us handles signals
