"""Pictures of every page at 390, 1440 and 2560 pixels, light, and dark at 1440, in docs/pictures/pages/; docs/screens.md shows them.

.venv/bin/python run/screenshots.py [--home FOLDER] [--only start try …]: over services of its own and the dummy dataset, on which it
trains what the pages show. With --home the folder is kept, and what was trained in it before is shown again.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from annotations.dummy import draw_dummy_dataset  # noqa: E402
from tests.clicks import CHROMIUM, QUIET, free_ports, services  # noqa: E402
from tests.conftest import draw_dataset, wait_for  # noqa: E402

OUT = ROOT / "docs" / "pictures" / "pages"
WIDTHS = {390: 844, 1440: 900, 2560: 1200}
PATIENCE = 1800.0
TALLEST = 1500
"""Pixels of a page; what is below is cut off."""
NETWORK = "dataset=dummy_dataset&network=pytorch/unet/resnet18"
SEEN = "(image) => image.checkVisibility() && image.getBoundingClientRect().top < innerHeight"
OLD = 40
"""Days since the jobs ended, on the page that says which are old."""
PAGES = {
    "login": ("/login", "Log in, where a token is asked for"),
    "empty": ("/", "Start, before there is anything"),
    "start": ("/", "Start"),
    "datasets": ("/datasets", "Datasets"),
    "dataset": ("/datasets/dummy_dataset", "A dataset: pictures under their masks, classes, split"),
    "dataset-faults": ("/datasets/half_labelled", "A dataset that cannot be learnt from, and what cures it"),
    "cure": ("/datasets/half_labelled/cures/set_unpaired_aside", "A cure, before it changes anything"),
    "picture": ("/datasets/dummy_dataset/pictures/plate_03", "A picture and its mask"),
    "new-dataset": ("/datasets/new", "Bringing a dataset"),
    "import": ("", "An import that asks for what the files do not say"),
    "train": ("/train?dataset=dummy_dataset", "Train, step 1: dataset"),
    "train-settings": ("/train/settings?dataset=dummy_dataset", "Train, step 2: settings"),
    "train-hyperparameters": (f"/train/hyperparameters?{NETWORK}", "Train, step 3: hyper-parameters"),
    "train-review": (f"/train/review?{NETWORK}", "Train, step 4: review"),
    "jobs": ("/jobs", "Jobs"),
    "queue": ("/queue", "The queue: what runs, what waits, and for what"),
    "job-waiting": ("/jobs/plates-wide", "A job that waits for its turn"),
    "job-learning": ("/jobs/plates-unet", "A job while it learns"),
    "job": ("/jobs/plates-unet", "A job that has finished"),
    "job-failed": ("/jobs/broken", "A job that failed"),
    "compare-choose": ("/compare?job=plates-unet", "Choosing what to compare with"),
    "compare": ("/compare?job=plates-unet&job=plates-common", "Two jobs compared"),
    "models": ("/models", "Models"),
    "model": ("/models/plates-unet", "A model"),
    "try": ("/models/plates-unet/try", "Try it"),
    "try-two": ("/models/plates-unet/try?stem=plate_06&against=plates-common", "Two models on a validation picture"),
    "machine": ("/machine", "Machine"),
    "self-test": ("/machine/self-test/self-test-1", "The self-test"),
    "disk": ("/machine/disk?failed_days=30&checkpoints_days=30", "What old jobs keep on the disk"),
    "tokens": ("/machine/tokens", "Who may come in"),
    "problem": ("/models/nothing", "An address that is not there"),
}
"""Of every picture: the page's path and a caption. The address of the import comes from the import itself."""
BEFORE, HALF_WAY = ("empty",), ("job-learning",)
BUSY = ("start", "jobs", "queue", "job-waiting")
"""Taken while one job runs and others wait."""
LOCKED = ("tokens", "disk")
"""Taken by somebody who has logged in."""
WAITING = {"plates-night": "normal", "plates-wide": "normal", "plates-small": "high", "plates-later": "low"}
"""Jobs that are started for those pictures, the first of which runs, with their priorities."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--epochs", type=int, default=6)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        home, browser = wish.home or Path(aside), playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        wish.out.mkdir(parents=True, exist_ok=True)

        def shoot(address: str, *names: str, token: str = "", imported: str = "") -> None:
            asked = [name for name in names if not wish.only or name in wish.only]
            take(browser, address, wish.out, {name: PAGES[name][0] or imported for name in asked}, token)

        if not (home / "datasets").exists():
            with services(home) as address:  # before there is anything
                shoot(address, *BEFORE)
            prepare(home)
        for name in WAITING:
            shutil.rmtree(home / "checkpoints" / name, ignore_errors=True)
        with services(home, free_ports() | {"PARALLEL_JOBS": "1"}) as address:
            train(address, home, wish.epochs, lambda: shoot(address, *HALF_WAY))
            apart = (*BEFORE, *HALF_WAY, *BUSY, *LOCKED, "login")
            shoot(address, *[name for name in PAGES if name not in apart], imported=ask_to_import(address, home))
            fill_the_queue(address)
            shoot(address, *BUSY)
            for name in reversed(WAITING):
                post(address, f"/jobs/{name}/stop", {"keep_best": "false"})
        lock(home, shoot)
        browser.close()
    show(wish.out)
    total = sum(file.stat().st_size for file in wish.out.iterdir())
    print(f"{len(list(wish.out.iterdir()))} pictures, {total / 1e6:.1f} MB")


def prepare(home: Path) -> None:
    """A sound dataset, one that lacks masks, and one whose pictures will go while they are learnt from."""
    draw_dummy_dataset(home / "datasets" / "dummy_dataset")
    draw_dataset(home / "datasets" / "on_a_stick", pictures=8, size=(160, 120))
    faulty = draw_dataset(home / "datasets" / "half_labelled", pictures=8, size=(160, 120))
    for stem in ("p1", "p6"):
        (faulty / "labels" / f"{stem}.png").unlink()


def train(address: str, home: Path, epochs: int, half_way: Callable[[], None]) -> None:
    """What is not there yet: two models to compare, a job that fails, a self-test. `half_way` is called when one has learnt for a while."""
    plates = {"dataset": "dummy_dataset", "validation": "20", "seed": "0"}
    jobs = {
        "plates-unet": {**plates, "network": "pytorch/unet/resnet18", "set.epochs": str(epochs), "set.crops_per_picture": "3"},
        "plates-common": {**plates, "network": "majority/majority/none", "set.epochs": "2"},
        "broken": {"dataset": "on_a_stick", "network": "pytorch/unet/resnet18", "validation": "20", "seed": "0"},
    }
    for name, fields in jobs.items():
        if not (home / "checkpoints" / name).exists():
            post(address, "/train", {**fields, "name": name})
            if name == "plates-unet":
                wait_for(lambda: f"epoch {epochs // 2 + 1} of" in get(address, "/jobs/plates-unet"), PATIENCE)
                half_way()
    for path in (home / "datasets" / "on_a_stick" / "images").iterdir():
        path.unlink()
    if not (home / "checkpoints" / "self-test-1").exists():
        wait_for(lambda: "Nothing is training" in get(address, "/"), PATIENCE)
        post(address, "/machine/self-test", {"engine": ""})
    wait_for(lambda: "Remove its job" in get(address, "/machine/self-test/self-test-1"), PATIENCE)


def ask_to_import(address: str, home: Path) -> str:
    """The page of an import whose labels are of no format that is known."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(4):
            archive.write(home / "datasets" / "dummy_dataset" / "images" / f"plate_0{number}.png", f"images/{number}.png")
            archive.writestr(f"marks/{number}.txt", "pad 20 10 40 30")
    answer = httpx.post(f"{address}/datasets/new", files={"files": ("cracks.zip", packed.getvalue())}, trust_env=False, timeout=120)
    assert answer.status_code == 303, answer.text[-2000:]
    found = str(answer.headers["location"])
    wait_for(lambda: "try again" in get(address, found), 60)
    return found


def fill_the_queue(address: str) -> None:
    """One job that has learnt for some epochs and goes on, others that wait behind it."""
    learnt = {"dataset": "dummy_dataset", "network": "pytorch/unet/resnet18", "set.crops_per_picture": "1", "set.epochs": "90"}
    for place, (name, priority) in enumerate(WAITING.items()):
        post(address, "/train", {**learnt, "name": name, "priority": priority})
        if not place:
            wait_for(lambda: "epoch 5 of" in get(address, "/jobs/plates-night"), PATIENCE)
    post(address, "/queue/plates-later", {"do": "hold"})


def lock(home: Path, shoot: Callable[..., None]) -> None:
    """Services that ask for a token: the page that asks, and those that their owner looks at, some weeks later."""
    age(home, OLD)
    try:
        with services(home, free_ports() | {"TOKEN": "a-token-for-pictures"}) as address:
            owner = httpx.Client(base_url=address, headers={"Authorization": "Bearer a-token-for-pictures"}, trust_env=False, timeout=60)
            for name, scope, days in (("camera-1", "infer", "90"), ("Anna", "train", "")):
                owner.post("/machine/tokens", data={"name": name, "scope": scope, "days": days})
            shoot(address, "login")
            shoot(address, *LOCKED, token="a-token-for-pictures")
    finally:
        age(home, -OLD)


def age(home: Path, days: float) -> None:
    """Let all jobs have happened so many days before."""
    for file in (home / "checkpoints").glob("*/events.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["at"] = (datetime.fromisoformat(row["at"].replace("Z", "+00:00")) - timedelta(days=days)).isoformat()
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def get(address: str, path: str) -> str:
    return httpx.get(address + path, trust_env=False, timeout=120).text


def post(address: str, path: str, fields: dict[str, str]) -> None:
    answer = httpx.post(address + path, data=fields, trust_env=False, timeout=120)
    assert answer.status_code == 303, (path, answer.status_code, answer.text[-2000:])


def take(browser: Browser, address: str, out: Path, paths: dict[str, str], token: str = "") -> None:
    """A picture of each page at each width and look, of somebody who logs in with `token` where there is one."""
    looks = [(width, "light") for width in WIDTHS] + [(1440, "dark")]
    for width, scheme in looks if paths else []:
        context = browser.new_context(
            base_url=address,
            viewport={"width": width, "height": WIDTHS[width]},
            color_scheme=scheme,
            reduced_motion="reduce",
            bypass_csp=True,  # what is waited for here is asked of the page by eval
        )
        page = context.new_page()
        if token:
            page.goto("/login")
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Log in").click()
        for name, path in paths.items():
            page.goto(path)
            settle(page)
            tall = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({"width": width, "height": max(WIDTHS[width], min(tall, TALLEST))})  # what sticks stays at the end
            page.wait_for_function(f"[...document.images].filter({SEEN}).every((image) => image.complete)")  # those that come late too
            page.wait_for_timeout(300)
            suffix = f"{width}-dark" if scheme == "dark" else str(width)
            keep(page.screenshot(), out / f"{name}-{suffix}.webp")
            page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        context.close()


def settle(page: Page) -> None:
    """Pictures are there, curves are drawn, and what a running job takes is told."""
    page.wait_for_function("[...document.images].every((image) => image.complete || image.loading === 'lazy')")
    two_looks = page.locator("[data-live=cpu]").count() == 1  # what a running job takes is known after the second
    page.wait_for_timeout(5000 if two_looks else 500)


def keep(screenshot: bytes, file: Path) -> None:
    with Image.open(io.BytesIO(screenshot)) as opened:
        opened.convert("RGB").save(file, quality=74, method=6)


def show(out: Path) -> None:
    """The page that shows the pictures: each at 1440 pixels, beside it links to the others."""
    made = "Made by `run/screenshots.py` with the dummy dataset: light at 390, 1440 and 2560 pixels, dark at 1440."
    words = ["# Every page in pictures", "", made, ""]
    for name, (_, caption) in PAGES.items():
        if (out / f"{name}-1440.webp").exists():
            links = {"narrow": "390", "wide": "2560", "dark": "1440-dark"}
            others = ", ".join(f"[{title}](pictures/pages/{name}-{suffix}.webp)" for title, suffix in links.items())
            words += [f"## {caption}", "", f"![{caption}](pictures/pages/{name}-1440.webp)", "", f"The same {others}.", ""]
    if out == OUT:
        (ROOT / "docs" / "screens.md").write_text("\n".join(words[:-1]) + "\n")


if __name__ == "__main__":
    main()
