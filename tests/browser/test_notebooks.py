"""Every notebook in a real JupyterLab in a real browser: all cells run, and every control changes its picture.

Not among the tests that plain `pytest` runs: `make browser`, or `pytest tests/browser`. It needs Chromium or Chrome on
the PATH (or its path in BROWSER) and playwright, which drives it; without either it is skipped. Notebooks run one after
the other in their `smoke` preset, on copies in a temporary folder, so nothing of the checkout changes. Screenshots of
every widget, before and after its controls moved, go to the folder named by ARTEFACTS, else to a temporary one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -c constraints.txt playwright"
)
from playwright.sync_api import Locator, Page  # noqa: E402

from fusionlib.notebook.widgets import CLASS  # noqa: E402
from fusionlib.support.paths import notebook_files  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = list(notebook_files(ROOT / "notebooks").values())
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--no-sandbox"]  # containers give Chromium no sandbox
# Seconds, with room for a busy machine, until: Lab is up, a notebook has run, a picture has changed.
STARTED, RUN, ANSWERED = 120, 900, 60

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no Chromium: apt-get install chromium, or name it in BROWSER"
    ),
]

# What a notebook's cells have come to; `jupyterapp` is there by --expose-app-in-browser.
PROGRESS = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    if (!kernel || !panel.content?.model) return null;
    const cells = [...panel.content.model.cells].filter(c => c.type === 'code' && c.sharedModel.source.trim());
    const errors = cells.flatMap(c => c.outputs.toJSON()).filter(o => o.output_type === 'error');
    const left = cells.filter(c => c.executionCount === null).length;
    return {idle: kernel.status === 'idle', left, errors: errors.map(e => `${e.ename}: ${e.evalue}`)};
}"""
# The pixels of an image, as text; null as long as it has not been loaded.
PIXELS = """image => {
    if (!image.complete || !image.naturalWidth) return null;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@dataclass
class Lab:
    """JupyterLab as a browser sees it: a page, and what it has complained of so far."""

    page: Page
    url: str
    token: str
    shots: Path
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """JupyterLab on copies of the notebooks, as git has them and without what they keep of a run; URL and token."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    for path in NOTEBOOKS:
        content = nbformat.read(path, nbformat.NO_CONVERT)
        for cell in content.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(content, home / "notebooks" / path.name)
    settings = home / "settings" / "@jupyterlab"
    for place, text in (
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),  # else cells out of sight are not in the page
        ("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
    ):
        file = settings / f"{place}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    kept = {name: str(home / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    kept |= {"JUPYTER_RUNTIME_DIR": str(home / "run"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    kept |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "MPLBACKEND": ""}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in (os.environ | kept | {"PYTHONPATH": paths}).items() if value}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", f"--port={port}"]
    command += ["--ip=127.0.0.1", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home}", "--allow-root"]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", process, home / "server.log")
            yield f"http://127.0.0.1:{port}", token
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # the server and its kernels, which are all its own
            process.wait(30)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + STARTED
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def lab(browser, server: tuple[str, str], shots: Path) -> Iterator[Lab]:
    """A fresh page; what it logs as an error is kept."""
    url, token = server
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    found = Lab(page, url, token, shots)
    page.on("console", lambda message: found.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    yield found
    # The kernel goes with the notebook: the next one has the memory to itself.
    page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
    context.close()


# --- the tests


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_every_control_changes_its_picture(path: Path, lab: Lab, tmp_path: Path) -> None:
    open_notebook(lab, path)
    run_all_cells(lab)
    explorers = lab.page.locator(f".{CLASS}")
    asked = len(re.findall(r"widgets\.(?:Explorer|compare)\(", path.read_text(encoding="utf-8")))
    assert explorers.count() == asked
    for number in range(asked):
        name = f"{path.stem}_{number}"
        explorers.nth(number).scroll_into_view_if_needed()
        explorers.nth(number).screenshot(path=lab.shots / f"{name}_first.png")
        move_every_control(lab, explorers.nth(number), tmp_path)
        explorers.nth(number).screenshot(path=lab.shots / f"{name}_moved.png")
    assert progress(lab)["errors"] == []
    assert lab.complaints == []


# --- what a reader does


def open_notebook(lab: Lab, path: Path) -> None:
    lab.page.goto(f"{lab.url}/lab/workspaces/{path.stem}/tree/notebooks/{path.name}?token={lab.token}")
    until(lab, lambda now: now is not None and now["idle"], STARTED, f"{path.name} did not open")


def run_all_cells(lab: Lab) -> None:
    """By the menu; at the end no cell has failed."""
    lab.page.get_by_role("menuitem", name="Run", exact=True).click()
    lab.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    until(lab, lambda now: now["errors"] or (now["idle"] and now["left"] == 0), RUN, "the cells did not come to an end")
    lab.page.screenshot(path=lab.shots / "last_run.png")
    assert progress(lab)["errors"] == []


def progress(lab: Lab) -> dict | None:
    return lab.page.evaluate(PROGRESS)


def until(lab: Lab, done, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not done(now := progress(lab)):
        if time.monotonic() > end:
            lab.page.screenshot(path=lab.shots / "stuck.png")
            pytest.fail(f"{otherwise}: {now}, {lab.complaints}")
        lab.page.wait_for_timeout(200)


def move_every_control(lab: Lab, explorer: Locator, folder: Path) -> None:
    """One step of each control, with the keyboard where there is a slider; the picture must answer every one."""
    moved = 0
    for handle in explorer.locator(".noUi-handle").all():
        at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        changes_picture(lab, explorer, lambda h=handle, key="ArrowLeft" if at_the_end else "ArrowRight": h.press(key))
        moved += 1
    for select in explorer.locator("select").all():
        options, chosen = select.evaluate("s => [s.options.length, s.selectedIndex]")
        if options > 1:  # with only one data set there is nothing to choose
            changes_picture(lab, explorer, lambda s=select, i=(chosen + 1) % options: s.select_option(index=i))
            moved += 1
    for buttons in explorer.locator(".widget-toggle-buttons").all():
        off = buttons.locator("button:not(.mod-active)").first
        changes_picture(lab, explorer, off.press, "Enter")
        moved += 1
    if uploads := explorer.locator(".widget-upload").all():
        upload_pair(lab, explorer, uploads, folder)
        moved += 1
    assert moved, "there is no control"


def upload_pair(lab: Lab, explorer: Locator, uploads: list[Locator], folder: Path) -> None:
    """Two files that do not fit are refused in one line; two that do are fused."""
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "infrared.png")
    Image.fromarray(255 - ramp).save(folder / "visible.png")
    Image.fromarray(ramp[:40, :40]).save(folder / "small.png")
    before = pixels(explorer)
    give(lab, uploads[0], folder / "infrared.png")
    give(lab, uploads[1], folder / "small.png")
    explorer.get_by_text("infrared.png is 80x64 and small.png is 40x40 pixels: crop or resize one").wait_for()
    assert pixels(explorer) == before
    changes_picture(lab, explorer, lambda: give(lab, uploads[1], folder / "visible.png"))
    explorer.get_by_text("crop or resize one").wait_for(state="detached")


def give(lab: Lab, button: Locator, file: Path) -> None:
    with lab.page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(file)


def changes_picture(lab: Lab, explorer: Locator, act, *arguments: object) -> None:
    before = pixels(explorer)
    act(*arguments)
    end = time.monotonic() + ANSWERED
    while (now := pixels(explorer)) is None or now == before:
        assert time.monotonic() < end, f"the picture did not change; note: {explorer.inner_text()!r}"
        lab.page.wait_for_timeout(50)


def pixels(explorer: Locator) -> str | None:
    return explorer.locator("img").evaluate(PIXELS)
