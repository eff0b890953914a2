"""Compilation of the kernels for a GPU, tested without one; their results are tested in test_ops.py and
test_passes.py."""

import os
import subprocess
import sys

import pytest
from programs import REPOSITORY

from network import triton_setup

triton = pytest.importorskip("triton", reason="needs Triton")

SCRIPTS = REPOSITORY / "tests/scripts"


def run_python(*arguments, without: str, **changes: str) -> subprocess.CompletedProcess:
    """In a process of its own, where one environment variable is not set and others are changed."""
    kept = {name: value for name, value in os.environ.items() if name != without}
    path = os.pathsep.join([str(REPOSITORY), kept.get("PYTHONPATH", "")])
    environment = {**kept, "PYTHONPATH": path, **changes}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["engine", "ops"])
def test_kernels_compile_for_a_gpu(tmp_path, kernels):
    """A version of Triton may fail to compile what its interpreter runs, as in this process."""
    cache = str(tmp_path / "cache")
    done = run_python(SCRIPTS / "compile_kernels.py", kernels, without="TRITON_INTERPRET", TRITON_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_was_hashed_before_is_not_in_the_key_of_a_kernel():
    """By itself Triton fails this before 3.8."""
    forward, backward = (
        run_python(SCRIPTS / "kernel_keys.py", order, without="TRITON_INTERPRET") for order in ("1", "-1")
    )
    assert forward.stdout and forward.stdout == backward.stdout, forward.stderr + backward.stderr


@pytest.mark.parametrize("release, newer", [("12.8", True), ("12.8", False), ("12.9", True)])
@pytest.mark.parametrize("chosen", [None, "/my/ptxas"])
def test_the_assembler_that_spoils_addresses_is_avoided(tmp_path, monkeypatch, release, newer, chosen):
    tools = tmp_path / "backends" / "nvidia" / "bin"
    tools.mkdir(parents=True)
    for name in ["ptxas"] + ["ptxas-blackwell"] * newer:
        (tools / name).write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.93'\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(triton.__spec__, "origin", str(tmp_path / "__init__.py"))
    monkeypatch.setenv("TRITON_PTXAS_PATH", chosen or "")  # so that it is as before afterwards
    if not chosen:
        monkeypatch.delenv("TRITON_PTXAS_PATH")
    triton_setup.avoid_broken_assembler()
    expected = str(tools / "ptxas-blackwell") if release == "12.8" and newer else None
    assert os.environ.get("TRITON_PTXAS_PATH") == (chosen or expected)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"TRITON_HOME": "{}"}, "{}/.triton/cache"),
        ({"TRITON_HOME": "", "HOME": "{}"}, "{}/.triton/cache"),
        ({"TRITON_HOME": "{}/nowhere", "TMPDIR": "{}"}, f"{{}}/triton_{os.getuid()}/cache"),
        ({"TRITON_HOME": "{}", "TRITON_CACHE_DIR": "/my/kernels"}, "/my/kernels"),
    ],
)
def test_training_and_rendering_keep_compiled_kernels_in_one_folder(tmp_path, environment, expected):
    say = "import os; from network import triton_setup; triton_setup.prepare(); print(os.environ['TRITON_CACHE_DIR'])"
    changed = {name: value.format(tmp_path) for name, value in environment.items()}
    done = run_python("-c", say, without="TRITON_CACHE_DIR", **changed)
    assert done.stdout.strip() == expected.format(tmp_path), done.stderr
