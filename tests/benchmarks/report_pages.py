"""Pages of `cimc report` in a browser: axe-core's violations and overflow at three widths, in light and dark.

python -m tests.benchmarks.report_pages [PAGE ...]

Without pages it makes its own: LeNet-1 compiled, trained in short on synthetic digits, its package for a die with
stuck cells, deployed over time. Needs Chromium, Node, and `npm install axe-core puppeteer-core` in a folder that
CIMC_NODE_MODULES (else ./node_modules) names; says in one line what is missing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import cimc
from cimc.report.html import write_page
from cimc.report.package_page import package_report
from cimc.report.page import report
from cimc.report.read_deployments import read_deployments
from runtime.deployment.result import summary

MODEL = Path(__file__).parents[2] / "models" / "lenet1.onnx"
WIDTHS, MODES = (390, 900, 1600), ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Prints one JSON line a page, mode and width. What a page would like to fetch is counted, and fetches nothing.
SCRIPT = """
const [modules, browser, ...pages] = process.argv.slice(2);
const puppeteer = require(modules + '/puppeteer-core');
(async () => {
  const chromium = await puppeteer.launch({executablePath: browser, args: ['--no-sandbox'], headless: true});
  for (const path of pages) for (const mode of %s) for (const width of %s) {
    const page = await chromium.newPage();
    let fetched = 0;
    page.on('request', request => { fetched += /^https?:/.test(request.url()) ? 1 : 0; });
    await page.setViewport({width, height: 900});
    await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: mode}]);
    await page.goto('file://' + path);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    await page.addScriptTag({path: modules + '/axe-core/axe.min.js'});
    const found = await page.evaluate(() => axe.run());
    const violations = found.violations.map(one => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 100)]);
    console.log(JSON.stringify({path, mode, width, over, fetched, violations, passes: found.passes.length}));
    await page.close();
  }
  await chromium.close();
})().catch(error => { console.error(String(error)); process.exit(1); });
"""


def main() -> None:
    """Print a table: pages by widths and modes. Exit status 1: a page has a violation or is wider than the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    given = parser.parse_args().pages
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    modules = Path(os.environ.get("CIMC_NODE_MODULES", "node_modules")).resolve()
    missing = [
        *([] if browser else ["chromium"]),
        *([] if shutil.which("node") else ["node"]),
        *(name for name in ("axe-core", "puppeteer-core") if not (modules / name).is_dir()),
    ]
    if missing:
        print(f"skipped: {', '.join(missing)} not found; see the head of {Path(__file__).name}")
        return
    with tempfile.TemporaryDirectory() as folder:
        pages = given or make_pages(Path(folder))
        script = Path(folder) / "pages.cjs"
        script.write_text(SCRIPT % (json.dumps(MODES), json.dumps(WIDTHS)), encoding="utf-8")
        command = ["node", str(script), str(modules), str(browser), *(str(page.resolve()) for page in pages)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes = {str(page.resolve()): page.stat().st_size for page in pages}
    sys.exit(show([json.loads(line) for line in done.stdout.splitlines()], sizes))


def show(found: list[dict[str, Any]], sizes: dict[str, int]) -> int:
    """Print the table, then what is wrong; 1 where something is."""
    print(f"{'page':28} {'kB':>6} {'mode':6} width violations rules-met too-wide fetched")
    for one in found:
        name, size = Path(one["path"]).stem, sizes[one["path"]] / 1000
        print(
            f"{name[:28]:28} {size:6.0f} {one['mode']:6} {one['width']:5} {len(one['violations']):10} "
            f"{one['passes']:9} {one['over']:8} {one['fetched']:7}"
        )
    for one in found:
        for rule, count, html in one["violations"]:
            print(f"{Path(one['path']).stem}, {one['mode']}, {one['width']}: {rule}, {count} times, first {html}")
    return int(any(one["violations"] or one["over"] > 0 or one["fetched"] for one in found))


def make_pages(folder: Path) -> list[Path]:
    """Pages of a compiled and a trained file and of a package with a die of its own."""
    data = cimc.load_data("digits")
    compiled = cimc.compile(MODEL, "brram-256x64", output=folder / "lenet1.cim").artifact
    options = cimc.TrainingOptions(cimc.Policy(), epochs=3, steps_per_epoch=20)
    trained = cimc.train(compiled, data, options=options, output=folder / "trained.cim").artifact
    die, generator = folder / "die.csv", np.random.default_rng(0)
    stuck = np.argwhere(generator.random((trained.mapping.arrays + 1, 256, 64)) < 0.05)
    lines = [f"{array},{row},{column},stuck-{'low' if row % 2 else 'high'}" for array, row, column in stuck]
    die.write_text("\n".join(["array,row,column,kind", *lines]), encoding="utf-8")
    package = cimc.export(
        folder / "trained.cim", "brram-256x64", output=folder / "package", data=data, die=die, layers=True
    )
    found = cimc.deploy(folder / "package", data, chips=5, at=("1s", "1y"))
    deployed = folder / "deployed.json"
    deployed.write_text(json.dumps(summary(found)), encoding="utf-8")
    made = {
        "compiled": report(compiled),
        "trained": report(trained),
        "package": package_report(package, read_deployments([deployed], None)),
    }
    pages = [folder / f"{name}.html" for name in made]
    for page, text in zip(pages, made.values(), strict=True):
        write_page(text, page)
    return pages


if __name__ == "__main__":
    main()
