"""Screenshots of every page at 390, 1440 and 2560 pixels, light, and dark at 1440, into docs/pictures/pages/.

.venv/bin/python run/screenshots.py [--home FOLDER] [--only start try …]: over services of its own and the dummy dataset, on which it
trains what the pages show. With --home the folder is kept, and what was trained in it before is shown again.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from annotations.dummy import draw_dummy_dataset  # noqa: E402
from tests.clicks import CHROMIUM, QUIET, services  # noqa: E402
from tests.conftest import draw_dataset, wait_for  # noqa: E402

WIDTHS = {390: 844, 1440: 900, 2560: 1200}
PATIENCE = 1800.0
TALLEST = 1500
"""Pixels of a page; what is below is cut off."""
NETWORK = "dataset=dummy_dataset&network=pytorch/unet/resnet18"
TWO = "/models/plates-unet/try?stem=plate_06&against=plates-common"
ADDRESSES = {
    "start": "/",
    "datasets": "/datasets",
    "dataset": "/datasets/dummy_dataset",
    "dataset-faults": "/datasets/half_labelled",
    "picture": "/datasets/dummy_dataset/pictures/plate_03",
    "new-dataset": "/datasets/new",
    "train": "/train?dataset=dummy_dataset",
    "train-settings": "/train/settings?dataset=dummy_dataset",
    "train-hyperparameters": f"/train/hyperparameters?{NETWORK}",
    "train-review": f"/train/review?{NETWORK}",
    "jobs": "/jobs",
    "job": "/jobs/plates-unet",
    "job-failed": "/jobs/broken",
    "compare": "/compare?job=plates-unet&job=plates-common",
    "models": "/models",
    "model": "/models/plates-unet",
    "try": "/models/plates-unet/try",
    "try-two": TWO,
    "machine": "/machine",
    "self-test": "/machine/self-test/self-test-1",
    "problem": "/models/nothing",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "pages")
    parser.add_argument("--epochs", type=int, default=6)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        home = wish.home or Path(aside)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        wish.out.mkdir(parents=True, exist_ok=True)
        if not (home / "datasets").exists():
            with services(home) as address:  # before there is anything
                take(browser, address, wish.out, {"empty": "/"})
            prepare(home)
        with services(home) as address:
            train(address, home, wish.epochs)
            chosen = {name: path for name, path in ADDRESSES.items() if not wish.only or name in wish.only}
            take(browser, address, wish.out, chosen)
        browser.close()
    total = sum(file.stat().st_size for file in wish.out.iterdir())
    print(f"{len(list(wish.out.iterdir()))} pictures, {total / 1e6:.1f} MB")


def prepare(home: Path) -> None:
    """A sound dataset, one that lacks masks, and one whose pictures will go while they are learnt from."""
    draw_dummy_dataset(home / "datasets" / "dummy_dataset")
    draw_dataset(home / "datasets" / "on_a_stick", pictures=8, size=(160, 120))
    faulty = draw_dataset(home / "datasets" / "half_labelled", pictures=8, size=(160, 120))
    for stem in ("p1", "p6"):
        (faulty / "labels" / f"{stem}.png").unlink()


def train(address: str, home: Path, epochs: int) -> None:
    """What is not there yet: two models to compare, a job that fails, a self-test."""
    plates = {"dataset": "dummy_dataset", "validation": "20", "seed": "0"}
    jobs = {
        "plates-unet": {**plates, "network": "pytorch/unet/resnet18", "set.epochs": str(epochs), "set.crops_per_picture": "3"},
        "plates-common": {**plates, "network": "majority/majority/none", "set.epochs": "2"},
        "broken": {"dataset": "on_a_stick", "network": "pytorch/unet/resnet18", "validation": "20", "seed": "0"},
    }
    for name, fields in jobs.items():
        if not (home / "checkpoints" / name).exists():
            post(address, "/train", {**fields, "name": name})
    for path in (home / "datasets" / "on_a_stick" / "images").iterdir():
        path.unlink()
    if not (home / "checkpoints" / "self-test-1").exists():
        wait_for(lambda: "Nothing is training" in get(address, "/"), PATIENCE)
        post(address, "/machine/self-test", {"engine": ""})
    wait_for(lambda: "Remove its job" in get(address, "/machine/self-test/self-test-1"), PATIENCE)


def get(address: str, path: str) -> str:
    return httpx.get(address + path, trust_env=False, timeout=120).text


def post(address: str, path: str, fields: dict[str, str]) -> None:
    answer = httpx.post(address + path, data=fields, trust_env=False, timeout=120)
    assert answer.status_code == 303, (path, answer.status_code, answer.text[-2000:])


def take(browser: Browser, address: str, out: Path, pages: dict[str, str]) -> None:
    looks = [(width, "light") for width in WIDTHS] + [(1440, "dark")]
    for width, scheme in looks:
        context = browser.new_context(
            base_url=address, viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        for name, path in pages.items():
            page.goto(path)
            settle(page)
            tall = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({"width": width, "height": max(WIDTHS[width], min(tall, TALLEST))})  # what sticks stays at the end
            page.wait_for_timeout(200)
            suffix = f"{width}-dark" if scheme == "dark" else str(width)
            keep(page.screenshot(), out / f"{name}-{suffix}.png")
            page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        context.close()


def settle(page: Page) -> None:
    """Pictures are there, curves are drawn."""
    page.wait_for_function("[...document.images].every((image) => image.complete || image.loading === 'lazy')")
    page.wait_for_timeout(500)


def keep(screenshot: bytes, file: Path) -> None:
    """With as few colours as do: a page is mostly plain."""
    with Image.open(io.BytesIO(screenshot)) as opened:
        picture = opened.convert("RGB")
    picture.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
