"""Makes the README's pictures: python -m benchmarks.gallery --model-path MODEL --scene SCENE [--only flight mesh viewer]

A flight, a labelled mesh, and the page in the browser (needs playwright and Chromium).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from utils.cli import run_command

IMAGES = Path("imgs")
PORT = 8765


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default="configs/cra/test_cra_synthetic.yaml")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--only", nargs="+", choices=("flight", "mesh", "viewer"), default=["flight", "mesh", "viewer"])
    parser.add_argument("--settle", type=float, default=20, help="seconds until the page's picture is at its finest")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    common = ["--cfg", args.cfg, "--model-path", args.model_path, "--scene", args.scene, *args.overrides]

    def command(mode: str, *options: str) -> list[str]:
        return [sys.executable, "run_rendering.py", mode, *common, *options]

    with tempfile.TemporaryDirectory() as folder:
        if "flight" in args.only:
            film = Path(folder) / "flight.webp"
            subprocess.run(command("video", "--seconds", "6", "--fps", "10", "--out", str(film)), check=True)
            shutil.copy(film, IMAGES)
        if "mesh" in args.only:
            subprocess.run(command("mesh", "--score", "--out", f"{folder}/mesh.ply"), check=True)
            shutil.copy(f"{folder}/mesh.png", IMAGES)
    if "viewer" in args.only:
        page = subprocess.Popen(command("viewer", "--port", str(PORT)))
        try:
            photograph(f"http://localhost:{PORT}", IMAGES / "viewer.png", args.settle)
        finally:
            page.terminate()


def photograph(address: str, picture: Path, settle: float) -> None:
    """The page with classes laid over colour, after it had time to render."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        tab = browser.new_page(viewport={"width": 1100, "height": 620})
        for _ in range(60):
            try:
                tab.goto(address)
                break
            except Exception:  # it still starts
                time.sleep(2)
        tab.get_by_text("Click on the picture").wait_for(timeout=60_000)
        tab.locator("input[value=colour]").first.click()
        tab.get_by_role("option", name="overlay").click()
        tab.locator(".mantine-Notification-closeButton").first.click()  # that there is no GPU in this browser
        time.sleep(settle)
        tab.mouse.click(380, 400)
        time.sleep(2)
        tab.screenshot(path=str(picture))
        browser.close()


if __name__ == "__main__":
    run_command(main)
