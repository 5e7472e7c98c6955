"""From click to mask in a real browser: ./run/bench.sh first_model FOLDER [--engine gluon] [--pictures docs/pictures]

Starts the services, clicks through the wizard with the defaults, presses start, and takes the time from there until the
validation mIoU first reaches 0.85 and until the model is there. Then downloads the model and compares its masks of the
validation pictures with the served ones, pixel by pixel. With --pictures it keeps a screenshot of every step.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from machine import free_port, report
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from annotations.dataset import open_dataset, read_mask
from contracts.events import EpochDone
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE

GOAL = 0.85
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def services(datasets: Path, checkpoints: Path) -> Iterator[str]:
    """`maskwright up` on free ports; the pages' address."""
    ports = {name: str(free_port()) for name in ("SDK_PORT", "INFERENCE_PORT", "GUI_PORT")}
    environment = {**os.environ, **ports, "DATASETS": str(datasets), "CHECKPOINTS": str(checkpoints)}
    up = subprocess.Popen([sys.executable, "-m", "cli", "up"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert up.stdout is not None
        print(up.stdout.readline().strip(), file=sys.stderr)
        yield f"http://127.0.0.1:{ports['GUI_PORT']}"
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(timeout=60)


class Walk:
    """A person's way through the pages, with a screenshot of every step where a folder is given."""

    def __init__(self, page: Page, pictures: Path | None) -> None:
        self.page, self.pictures = page, pictures

    def look(self, name: str) -> None:
        if self.pictures:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=self.pictures / f"{name}.png")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    def start(self, dataset: str, network: str, name: str) -> float:
        """Through the wizard with the defaults; the moment at which start was pressed."""
        self.page.goto("/train")
        self.page.locator(f"input[name=dataset][value='{dataset}']").check()
        self.look("dataset")
        self.press("Next: Settings")
        choice = self.page.locator(f"input[name=network][value='{network}']")
        choice.wait_for(state="attached")
        if not choice.is_visible():
            self.page.locator("details.group", has=choice).locator("summary").click()
        choice.check()
        self.look("settings")
        self.press("Next: Hyper-parameters")
        self.look("hyperparameters")
        self.press("Next: Review")
        self.page.locator("#name").fill(name)
        self.look("review")
        pressed = time.time()
        self.press("Start training")
        self.page.wait_for_url(f"**/jobs/{name}")
        return pressed

    def try_picture(self, model: str, picture: Path) -> None:
        self.page.goto(f"/models/{model}/try")
        self.page.locator("input[type=file]").set_input_files(picture)
        self.press("See what it finds")
        self.page.locator("#answer img.over").first.wait_for()
        self.look("try")


def follow(walk: Walk, folder: JobFolder, deadline: float) -> None:
    """Until the job has ended; a screenshot in the middle."""
    looked = False
    while time.time() < deadline:
        events = folder.events()
        if not looked and sum(isinstance(event, EpochDone) for event in events) >= 5:
            walk.look("job")
            looked = True
        if events and events[-1].event in ("finished", "failed", "stopped"):
            if events[-1].event != "finished":
                sys.exit(f"the job {folder.name} {events[-1].event}: see {folder.log_file}")
            walk.page.reload()
            walk.look("finished")
            return
        time.sleep(1)
    sys.exit("the job did not end in time")


def masks_agree(address: str, model: str, dataset: Path, stems: list[str], archive: Path) -> float:
    """Share of equal pixels between the served masks and those of the downloaded zip, over the validation pictures."""
    equal = pixels = 0
    pairs = {pair.stem: pair for pair in open_dataset(dataset).pairs}
    with tempfile.TemporaryDirectory() as folder:
        for stem in stems:
            picture, out = pairs[stem].picture, Path(folder) / "mask.png"
            subprocess.run(
                [sys.executable, "-m", "cli", "predict", str(archive), str(picture), "--out", str(out)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            url = f"{address}/models/{model}/predict?answer=mask"
            answer = httpx.post(url, files={"picture": picture.read_bytes()}, timeout=120, trust_env=False).raise_for_status()
            served = np.asarray(Image.open(io.BytesIO(answer.content)))
            equal += int((served == read_mask(out)).sum())
            pixels += served.size
    return equal / pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a dataset folder: images/, labels/, objectclasses.json")
    parser.add_argument("--engine", default="pytorch")
    parser.add_argument("--pictures", type=Path, help="where screenshots go")
    parser.add_argument("--minutes", type=float, default=40)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or parser.error("there is no Chromium on this machine (Debian: apt install chromium)")
    if not asked.folder.is_dir():
        parser.error(f"there is no folder {asked.folder}")
    dataset = asked.folder.resolve()
    network = next(row.key for row in CATALOGUE if row.engine == asked.engine)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright, services(dataset.parent, Path(scratch)) as address:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        page = browser.new_page(base_url=address, viewport={"width": 1440, "height": 1000})
        walk = Walk(page, asked.pictures)
        pressed = walk.start(dataset.name, network, "first")
        folder = JobFolder(Path(scratch) / "first")
        follow(walk, folder, time.time() + asked.minutes * 60)
        page.goto("/models")
        walk.look("models")
        with page.expect_download() as download:
            page.locator("a[href*='/models/first/download']").first.click()
        archive = Path(scratch) / "first.zip"
        download.value.save_as(archive)
        split = folder.path / "split.json"
        stems = json.loads(split.read_text())["validation"]
        walk.try_picture("first", next(pair.picture for pair in open_dataset(dataset).pairs if pair.stem == stems[0]))
        agreement = masks_agree(address, "first", dataset, stems, archive)
        events = folder.events()
        browser.close()
    epochs = [event for event in events if isinstance(event, EpochDone)]
    rows = [
        (
            e.scores.epoch,
            f"{e.at.timestamp() - pressed:.0f}",
            f"{e.scores.loss:.3f}",
            f"{e.scores.mean_iou:.3f}",
            *(f"{v:.3f}" for v in e.scores.iou_per_class.values() if v is not None),
        )
        for e in epochs
        if e.scores.mean_iou is not None
    ]
    reached = [event.at.timestamp() - pressed for event in epochs if (event.scores.mean_iou or 0) >= GOAL]
    figures = {
        "seconds_to_085": round(min(reached), 1) if reached else None,
        "best_miou": round(max(event.scores.mean_iou or 0 for event in epochs), 4),
        "seconds_total": round(events[-1].at.timestamp() - pressed, 1),
        "masks_equal": agreement,
    }
    report(("epoch", "seconds", "loss", "mIoU", *epochs[-1].scores.iou_per_class), rows, figures)


if __name__ == "__main__":
    main()
