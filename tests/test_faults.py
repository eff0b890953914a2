"""Faults that training survives: kills at any moment, damaged checkpoints, unreadable images, dying workers."""

import errno
import itertools
import multiprocessing
import os
import pkgutil
import shutil
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from dataset.loading import MOST_DEATHS, load
from dataset.views import Batch, Cameras, Views
from network.weights import load_checkpoint
from train.trainer import Trainer
from utils.errors import UserError

# A function, which of its calls, and how much of that call is carried out before its process is killed.
MOMENTS = (
    ("train.trainer:Trainer.train_step", 1, "all"),  # a step that nothing is saved of
    ("torch:save", 2, "half"),  # the next checkpoint is cut short
    ("torch:save", 2, "all"),  # it is whole, but does not have its name yet
    ("train.checkpoint:_link", 1, "all"),  # the latest has a second name
    ("train.checkpoint:save_checkpoint", 2, "all"),  # the next is there, and one too many of the earlier ones
    ("train.trainer:evaluate", 1, "all"),  # a validation of which nothing is noted
    ("train.checkpoint:Checkpoints.newest", 1, "all"),  # a checkpoint is read, and goes on in nothing
)


def _killed_at(function, number, part):
    """`function`, but its call `number` ends the process, with all of it carried out or half of a file written."""
    calls = itertools.count(1)

    def call(*arguments, **options):
        result = function(*arguments, **options)
        if next(calls) == number:
            if part == "half":
                os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def _train_and_be_killed(cfg):
    """Starts the training again and again, each time killed at the next of MOMENTS, and then lets it end."""
    # Both take a second to import, here once for all that are forked.
    import torch._dynamo  # noqa: F401
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    for moment in (*MOMENTS, None):
        process = os.fork()
        if process == 0:
            if moment is not None:
                name, number, part = moment
                killed = _killed_at(pkgutil.resolve_name(name), number, part)
                pytest.MonkeyPatch().setattr(name.replace(":", "."), killed)
            Trainer(cfg).run()
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if ended != (0 if moment is None else -signal.SIGKILL):
            os._exit(1)


@pytest.mark.slow
def test_a_run_that_is_killed_at_every_decisive_moment_ends_like_one_that_is_not(config):
    changes = {"total_step": 12, "save_interval": 2, "val_interval": 5, "keep_checkpoints": 2}
    killed = config(name="killed", **changes)
    process = multiprocessing.get_context("spawn").Process(target=_train_and_be_killed, args=(killed,))
    process.start()
    process.join(280)
    assert process.exitcode == 0
    whole = Trainer(config(name="whole", **changes))
    whole.run()
    latest = Trainer(killed).checkpoints.newest()
    expected = load_checkpoint(whole.checkpoints.latest)
    assert latest.step == 12 and latest.best == expected.best
    assert all(torch.equal(value, expected.network[name]) for name, value in latest.network.items())
    assert len(whole.checkpoints.earlier()) == 2
    leftovers = list(whole.folder.parent.glob("killed/.*.tmp"))
    assert len(leftovers) <= 2  # what was being written in the moment of a kill


def test_a_damaged_latest_checkpoint_falls_back_to_the_one_before(config, capsys):
    Trainer(config(total_step=4, save_interval=1)).run()
    trainer = Trainer(config(total_step=5, save_interval=1))
    latest = trainer.checkpoints.latest
    assert [path.name for path in trainer.checkpoints.earlier()] == ["model_00000003.pth"]
    latest.write_bytes(latest.read_bytes()[:-5000])
    trainer.run()
    assert (
        "model.pth: not a checkpoint, or cut short, or some of its bytes have changed; goes back to model_00000003.pth"
        in capsys.readouterr().err
    )
    assert load_checkpoint(latest).step == 5
    for path in (latest, *trainer.checkpoints.earlier()):
        path.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="no earlier one can be read either"):
        Trainer(config(total_step=6)).run()


def test_where_files_have_no_second_names_earlier_checkpoints_are_copies(config, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refuse)
    trainer = Trainer(config(total_step=3, save_interval=1, keep_checkpoints=1))
    trainer.run()
    (earlier,) = trainer.checkpoints.earlier()
    assert (load_checkpoint(earlier).step, load_checkpoint(trainer.checkpoints.latest).step) == (2, 3)


@pytest.mark.parametrize("several", [False, True])
def test_a_second_signal_ends_at_once_unless_torchrun_passes_it_on(config, monkeypatch, several):
    if several:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    trainer = Trainer(config(total_step=4, save_interval=100, val_set_list=[]))
    step = trainer.train_step

    def interrupted(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    trainer.train_step = interrupted
    if several:
        trainer.run()
        assert load_checkpoint(trainer.checkpoints.latest).step == 1
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert not trainer.checkpoints.latest.exists()


def test_bytes_that_flip_in_a_checkpoint_are_noticed(config):
    Trainer(config(total_step=2, save_interval=1)).run()
    trainer = Trainer(config(total_step=3))
    latest = trainer.checkpoints.latest
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 255
    latest.write_bytes(bytes(content))
    assert trainer.checkpoints.newest().step == 1


def damaged(config, rooms, tmp_path, frames, **changes):
    """A config of rooms of which some colour images are cut short after the scenes were opened."""
    shutil.copytree(rooms, tmp_path / "data")
    trainer = Trainer(config(data_root=str(tmp_path / "data"), **changes))
    for name in ("train_000", "train_001"):
        for path in itertools.islice(sorted((tmp_path / "data/scannet" / name / "color").iterdir()), frames):
            path.write_bytes(path.read_bytes()[:100])
    return trainer


def test_images_that_turn_unreadable_are_skipped_and_counted(config, rooms, tmp_path, capsys):
    trainer = damaged(config, rooms, tmp_path, frames=4, total_step=12)
    trainer.run()
    assert load_checkpoint(trainer.checkpoints.latest).step == 12 and trainer.unreadable > 0
    assert "the image is truncated" in (said := capsys.readouterr().err) and "another sample takes its place" in said


def test_too_many_unreadable_images_stop_a_run(config, rooms, tmp_path):
    trainer = damaged(config, rooms, tmp_path, frames=4, total_step=40, most_unreadable=2)
    with pytest.raises(UserError, match="3 samples could not be read, more than most_unreadable allows"):
        trainer.run()


def test_nothing_readable_stops_a_run_at_once(config, rooms, tmp_path):
    trainer = damaged(config, rooms, tmp_path, frames=1000, total_step=40)
    with pytest.raises(UserError, match="truncated.*and 9 other samples in a row could not be read either"):
        trainer.run()


class Deadly(Dataset):
    """Item 5 kills the process that reads it, `deaths` times."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __getitem__(self, index):
        if index == 5 and len(list(self.folder.iterdir())) < self.deaths:
            (self.folder / str(time.time_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        views = Views(Cameras(torch.eye(3, 4)[None], torch.eye(3)[None], torch.ones(1, 2), (4, 4)))
        return Batch(views, views, None, "scene", str(index))


def test_a_broken_connection_is_a_death_and_an_error_of_the_data_is_none(monkeypatch):
    def load_with(error):
        def batches(*_, **__):
            raise error

        monkeypatch.setattr("dataset.loading._batches", batches)
        list(load(None, range(3), 2, "cpu"))

    for broken in (ConnectionResetError(104, "Connection reset by peer"), EOFError()):
        with pytest.raises(UserError, match="worker processes keep dying"):
            load_with(broken)
    with pytest.raises(RuntimeError, match="Caught"):
        load_with(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))


@pytest.fixture
def impatient(monkeypatch):
    """torch looks every five seconds whether a worker that owes a batch is alive; here ten times a second."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


@pytest.mark.parametrize(("deaths", "survives"), [(1, True), (1000, False)])
def test_workers_that_die(impatient, tmp_path, deaths, survives):
    read = []

    def run():
        for batch in load(Deadly(tmp_path, deaths), range(12), 2, "cpu"):
            read.append(int(batch.frame))

    if survives:
        run()
        assert read == list(range(12))
    else:
        with pytest.raises(UserError, match="worker processes keep dying.*worker_num"):
            run()
        assert read == list(range(len(read))) and len(read) <= 5 and len(list(tmp_path.iterdir())) > MOST_DEATHS
