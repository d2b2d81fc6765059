"""The pictures of README and docs, from real runs: `make pictures`.

docs/images/report-*.png   parts of the pages of a run, a sweep, a comparison and a store of the embedded digits, which are
                           made here (build/pictures, a few minutes)
docs/images/grocery.svg    the README's: from a comparison on the grocery photos, which is made anew where their store lies
                           in cache/, and is otherwise drawn from what benchmarks/results has of it

docs/images/serve.png is of drawn fruit that is not kept here, and stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parents[1]
BUILD, IMAGES = HERE / "build" / "pictures", HERE / "docs" / "images"
DIGITS = (
    "extract --dataset digits",
    "train --dataset digits --seed 1993,1994,1995",
    "sweep --dataset digits --set l1=0,1e-4,5e-4,1e-3 --set lr=log:0.005:0.1:4 --set epochs=5,20 --report-seeds 1,2,3",
    "compare --dataset digits --methods tosca,simplecil,slda,ranpac,fecam,lda,pool --seeds 5",
    "report last -o run.html",
    "report runs/digits-sweep.sqlite -o sweep.html",
    "report runs/digits-compare.sqlite -o compare.html",
)
GROCERY = (
    "compare --dataset grocery --backbone vit_small_patch14_dinov2 --increment 9 "
    "--methods tosca,simplecil,slda,ranpac,pool --seeds 5 --no-report --json"
)
PICTURES = {  # file: page, and the heading of the section that is shown
    "report-run.png": ("run.html", "Run"),
    "report-classes.png": ("run.html", "What confused pairs look like"),
    "report-sweep.png": ("sweep.html", "Settings and their scores"),
    "report-compare.png": ("compare.html", "Comparison"),
    "report-store.png": ("store.html", "Store"),
}
WIDTH, MOST = 1200, 760  # pixels; what is taller is cut at its foot


def main() -> None:
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    for command in DIGITS:
        tosca(command, BUILD)
    (store,) = (BUILD / "cache").glob("digits--*")
    tosca(f"report {store} -o store.html", BUILD)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        for name, (file, heading) in PICTURES.items():
            page.goto((BUILD / file).as_uri())
            picture(page, heading, IMAGES / name)
        chromium.close()
    readme()


def picture(page: Page, heading: str, path: Path) -> None:
    """What stands under a heading of a section or a block."""
    title = page.locator("h3, h4").filter(has=page.locator(f"xpath=self::*[normalize-space()='{heading}']")).first
    box = title.locator("xpath=..").bounding_box()
    assert box is not None, heading
    clip = {"x": 0, "y": box["y"] - 8, "width": WIDTH, "height": min(box["height"] + 16, MOST)}
    page.screenshot(path=path, full_page=True, clip=clip)
    print(path.relative_to(HERE))


def readme() -> None:
    """The README's curves."""
    if list((HERE / "cache").glob("grocery--vit_small_patch14_dinov2*")):
        text = tosca(GROCERY, HERE)
        (HERE / "benchmarks" / "results" / "readme_chart.json").write_text(text, encoding="utf-8")
    else:
        print("no store of the grocery photos in cache/: README's picture is drawn from benchmarks/results")
    subprocess.run([sys.executable, HERE / "benchmarks" / "readme_chart.py"], check=True)
    print("docs/images/grocery.svg")


def tosca(command: str, folder: Path) -> str:
    """Runs a command in a folder, and gives what it printed."""
    print(f"tosca {command}", flush=True)
    words = [sys.executable, HERE / "cli.py", *command.split()]
    return subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
