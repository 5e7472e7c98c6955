"""What the largest pictures cost the inference service: ./run/bench.sh large_picture [--side 16000] [--model CHECKPOINTS NAME]

Draws a photograph-like picture of side × side pixels, as PNG and as JPEG, starts the real service, and asks it for masks and
segments, of the picture shrunk to the model's own size and of every pixel of it, in tiles. `peak_gb` is the largest memory that the
service's process ever had, decoding included. Without --model a network of one layer is asked, so that what is measured is
everything but the network; with one, its weights and its work on a tile come on top.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from machine import report
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loops.service import served

from inference_api.png import write_png
from tests.served import serve_brightness

QUESTIONS = (
    ("png", "answer=mask"),
    ("jpg", "answer=mask"),
    ("jpg", "answer=segments"),
    ("jpg", "answer=overlay"),
    ("png", "answer=mask&short_side=65535"),
)
ROWS = 500


def strips(side: int) -> Iterator[np.ndarray]:
    """Waves of grey with grain, a few rows at a time."""
    wave = np.sin(np.arange(side) / 300) * 60
    grain = np.random.default_rng(1).integers(-8, 8, (ROWS, side, 3))
    for top in range(0, side, ROWS):
        rows = (wave[top : top + ROWS, None, None] + wave[None, :, None] + 128 + grain[: side - top]).clip(0, 255)
        yield rows.astype(np.uint8)


def draw(folder: Path, side: int) -> dict[str, Path]:
    """The same picture as a PNG and as a JPEG."""
    files = {kind: folder / f"picture.{kind}" for kind in ("png", "jpg")}
    with open(files["png"], "wb") as file:
        write_png(file, (side, side), strips(side))
    picture = Image.new("RGB", (side, side))
    for index, rows in enumerate(strips(side)):
        picture.paste(Image.fromarray(rows), (0, index * ROWS))
    picture.save(files["jpg"], quality=90)
    return files


def peak_gb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9


def main() -> None:
    wishes = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wishes.add_argument("--side", type=int, default=16_000)
    wishes.add_argument("--model", nargs=2, metavar=("CHECKPOINTS", "NAME"))
    wishes.add_argument("--skip-tiles", action="store_true", help="leave out the last question, which takes minutes with a real network")
    asked = wishes.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints, name = Path(scratch) / "checkpoints", "brightness"
        if asked.model:
            checkpoints, name = Path(asked.model[0]).resolve(), asked.model[1]
        else:
            serve_brightness(checkpoints)
        files = draw(Path(scratch), asked.side)
        rows, peak = [], 0.0
        for kind, question in QUESTIONS[: -1 if asked.skip_tiles else None]:
            with served(checkpoints, largest_upload=2**31, deadline=3600) as (port, process):
                began = time.monotonic()
                with open(files[kind], "rb") as file:
                    url = f"http://127.0.0.1:{port}/v1/models/{name}/predict?{question}"
                    answer = httpx.post(url, files={"picture": file}, timeout=3600).raise_for_status()
                memory = peak_gb(process)
            peak = max(peak, memory)
            size, sent = files[kind].stat().st_size, len(answer.content)
            rows.append((kind, question, f"{time.monotonic() - began:.1f}", f"{size / 1e6:.0f}", f"{sent / 1e6:.1f}", f"{memory:.2f}"))
    report(("kind", "question", "seconds", "MB sent", "MB back", "peak GB"), rows, {"peak_gb": round(peak, 2), "side": asked.side})


if __name__ == "__main__":
    main()
