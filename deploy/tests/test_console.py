"""The console in a browser: Debian's Chromium, without a screen, against the service as it is run.

Screens of it, to look at: `CONSOLE_PICTURES=folder make test-deploy`.
"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openpyxl
import pyarrow.csv
import pyarrow.parquet
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from calibrant.models import MODELS
from service.auth import main as make_key
from tests.service.process import Server
from tests.shared import ROOT

AXE = ROOT / ".axe" / "node_modules" / "axe-core" / "axe.min.js"
DAX = ROOT / "examples" / "dax_20020705.csv"
CHAIN = ROOT / "service" / "console" / "index_chain.csv"
# A page of the service needs nothing from elsewhere; the browser itself would.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--enable-unsafe-swiftshader"),
)
WINDOW: Any = {"viewport": {"width": 1440, "height": 1000}}
PATIENCE = 60_000
"""Milliseconds: what is late on a busy machine is not the subject, but where it is."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing: .ci/provision installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(default_deadline_ms=60_000)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


class Console:
    """A page of the console, and what it asked for."""

    def __init__(self, context: BrowserContext, server: Server, path: str = "/") -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        self.server = server
        self.asked: list[Request] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._said)
        self.page.goto(server.url + path)

    def _said(self, message: Any) -> None:
        # A refusal is logged by the browser itself.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def ready(self) -> "Console":
        expect(self.page.locator("#model option")).to_have_count(len(MODELS))
        return self

    def give(self, *files: Path | tuple[str, bytes]) -> "Console":
        chosen: list[Any] = [
            file if isinstance(file, Path) else {"name": file[0], "mimeType": "", "buffer": file[1]} for file in files
        ]
        self.page.set_input_files("#file", chosen)
        return self

    def fitted(self, model: str = "heston") -> "Console":
        """Until the pictures of a fit of that model are drawn."""
        expect(self.page.locator("#summary-title")).to_contain_text(f"· {model}")
        expect(self.page.locator("#answer.busy")).to_have_count(0)
        for figure in ("surface", "smiles"):
            expect(self.page.locator(f"#{figure}-figure")).to_have_attribute("data-drawn", re.compile("fitted"))
        expect(self.page.locator("#residuals-figure")).to_have_attribute("data-drawn", re.compile("Residuals of"))
        return self

    def picture(self, name: str) -> None:
        if folder := os.environ.get("CONSOLE_PICTURES"):
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)

    def traces(self, figure: str) -> list[dict[str, Any]]:
        """What Plotly was given to draw."""
        found: list[dict[str, Any]] = self.page.evaluate(
            "(id) => document.getElementById(id).data.map(({type, name, mode, x, y, z, line, marker}) => "
            "({type, name, mode, x, y, z, dash: line?.dash, symbol: marker?.symbol}))",
            f"{figure}-figure",
        )
        return found

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def saved(self, selector: str) -> bytes:
        with self.page.expect_download() as download:
            self.page.click(selector)
        return Path(download.value.path()).read_bytes()

    def close(self) -> None:
        """Nothing went wrong in it, and nothing was asked of another."""
        self.page.close()
        assert not self.errors
        hosts = {
            request.url for request in self.asked if not request.url.startswith((self.server.url, "data:", "blob:"))
        }
        assert not hosts


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all, so that scripts are loaded and compiled once."""
    with browser.new_context(**WINDOW) as context:
        yield context


@pytest.fixture
def console(context: BrowserContext, server: Server) -> Iterator[Console]:
    console = Console(context, server).ready()
    yield console
    console.close()


def dax() -> list[dict[str, str]]:
    with DAX.open() as file:
        return list(csv.DictReader(file))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def test_a_file_becomes_a_surface_without_another_action(console: Console) -> None:
    console.give(DAX).fitted()
    assert "DAX 2002-07-05" in console.text("#summary-title")
    assert "131.7" in console.text("#figures")
    assert "103 of 104" in " ".join(console.text("#figures").split())
    (surface,) = (trace for trace in console.traces("surface") if trace["type"] == "surface")
    vols = np.array(surface["z"], float)
    assert np.isfinite(vols).all()
    # The six violations of its quotes are marked, in both pictures, and listed.
    assert sum(len(trace["x"]) for trace in console.traces("surface") if trace["name"] == "arbitrage") == 6
    marked = [trace for trace in console.traces("smiles") if trace["symbol"] == "circle-open"]
    assert sum(len(trace["x"]) for trace in marked) == 6
    assert console.page.locator("#arbitrage tbody tr").count() == 6
    assert "vega below 0.001 of the forward" in console.text("#excluded")
    assert "refine" in console.text("#stages")
    assert console.page.locator("#parameters tbody tr").count() == MODELS["heston"].n_params
    console.picture("dax")


def test_the_smiles_are_the_models_and_the_quotes_the_markets(console: Console) -> None:
    console.give(DAX).fitted()
    answer = json.loads(console.saved("#save-result"))
    markers = [trace for trace in console.traces("smiles") if trace["mode"] == "markers"]
    lines = [trace for trace in console.traces("smiles") if trace["mode"] == "lines"]
    assert len(lines) == len({row["expiry_years"] for row in dax()})
    drawn = sorted(round(y, 6) for trace in markers if trace["symbol"] != "circle-open" for y in trace["y"])
    assert drawn == sorted(round(100.0 * float(row["mid_iv"]), 6) for row in dax())
    # Each curve goes through the model's vols at the quotes.
    model = np.array([np.nan if vol is None else 100.0 * vol for vol in answer["model_iv"]])
    strikes = np.array([float(row["strike"]) / float(row["forward"]) for row in dax()])
    expiries = np.array([float(row["expiry_years"]) for row in dax()])
    for line, expiry in zip(lines, np.unique(expiries), strict=True):
        here = (expiries == expiry) & np.isfinite(model) & (strikes <= max(line["x"]))
        assert np.interp(strikes[here], line["x"], line["y"]) == pytest.approx(model[here], abs=0.25)


def test_each_model_is_fitted_and_shown_with_its_parameters(console: Console) -> None:
    console.give(DAX).fitted()
    for model in MODELS:
        console.page.select_option("#model", model)
        console.fitted(model)
        names = console.page.locator("#parameters tbody th .muted").all_inner_texts()
        assert names == list(MODELS[model].parameters)
        console.picture(f"model_{model}")
    # A file says which model it is for.
    body = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())
    console.give(("request.json", json.dumps({**body, "model": "bates"}).encode())).fitted("bates")


def test_settings_are_sent_and_two_fits_compared(console: Console) -> None:
    console.give(DAX).fitted()
    page = console.page
    page.click("#keep")
    page.click("#limits summary")
    page.fill("[data-parameter=kappa][data-what='held at']", "3")
    page.fill("[data-parameter=xi][data-what='upper bound']", "2")
    page.select_option("#refine", "lbfgs")
    expect(page.locator("#parameters")).to_contain_text("held")
    console.fitted()
    request = json.loads(console.saved("#save-request"))
    assert request["fixed"] == {"kappa": 3}
    assert request["bounds"] == {"xi": [0.001, 2]}
    assert request["refine"] == "lbfgs"
    assert "kept: 131.7" in console.text("#figures")
    assert {trace["dash"] for trace in console.traces("smiles") if trace["mode"] == "lines"} == {None, "dash"}
    assert "Kept fit" in console.text("#parameters")
    console.picture("compared")
    page.click("#unkeep")
    expect(page.locator("#figures")).not_to_contain_text("kept")


def with_gaps() -> list[dict[str, Any]]:
    """The DAX panel with spreads, a hole in the middle of each smile, and quotes that nobody can use."""
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(dax()):
        mid = float(row.pop("mid_iv"))
        hole = 0.9 < float(row["strike"]) / float(row["forward"]) < 1.03
        bid, ask = (None, None) if hole else (round(mid - 0.004, 4), round(mid + 0.004, 4))
        rows.append({**row, "bid_iv": 0 if i == 20 else bid, "ask_iv": ask})
    rows[30] |= {"bid_iv": 0.5, "ask_iv": 0.4}
    return rows


def test_a_panel_with_gaps_shows_its_gaps_its_spreads_and_why_quotes_are_left_out(console: Console) -> None:
    console.give(("gaps.csv", as_csv(with_gaps()))).fitted()
    n_missing = sum(row["bid_iv"] is None for row in with_gaps())
    assert n_missing > 20
    assert f"{n_missing} quotes are missing" in console.text("#excluded")
    assert "quote, bid to ask" in console.text("#smiles-legend")
    bars = console.page.evaluate(
        "() => document.getElementById('smiles-figure').data.filter((t) => t.error_y?.array).length"
    )
    assert bars == len({row["expiry_years"] for row in dax()})
    # Half a spread of 80 bp each way.
    assert console.page.evaluate(
        "() => Math.max(...document.getElementById('smiles-figure').data.flatMap((t) => t.error_y?.array || []))"
    ) == pytest.approx(0.4)
    excluded = console.text("#excluded tbody")
    assert "20" in excluded
    assert "30" in excluded
    console.page.check("input[value=market]", force=True)
    expect(console.page.locator("#surface-figure canvas").first).to_be_visible()
    (market,) = (trace for trace in console.traces("surface") if trace["type"] == "surface")
    vols = np.array([[np.nan if vol is None else vol for vol in line] for line in market["z"]])
    places = np.array(market["x"])
    inside = (places > 0.94) & (places < 0.99)
    assert inside.any()
    assert np.isnan(vols[inside]).all()
    assert np.isfinite(vols[(places < 0.85)]).any()
    # The map of the residuals has the same hole.
    assert all(any(cell is None for cell in trace["z"][0]) for trace in console.traces("residuals"))
    console.picture("gaps")


def test_a_refusal_names_the_quote_and_leaves_nothing_of_the_last_fit(console: Console) -> None:
    console.give(DAX).fitted()
    body = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())
    body["quotes"]["strike"][17] = -100
    console.give(("bad.json", json.dumps(body).encode()))
    problem = console.page.locator("#problem")
    expect(problem).to_contain_text("/quotes/strike/17")
    expect(problem).to_contain_text("`quotes.strike[17]` must be a finite number > 0, but is -100.0.")
    expect(console.page.locator("#badge")).to_have_text("no fit")
    expect(console.page.locator("#residuals-figure")).to_contain_text("no residual")
    assert console.page.locator("#figures > div").count() == 0
    # The quotes are shown all the same, and no curve.
    assert not [trace for trace in console.traces("smiles") if trace["mode"] == "lines"]
    assert not [trace for trace in console.traces("surface") if trace["type"] == "surface"]
    assert console.page.locator("#save-result").is_disabled()
    console.picture("refused")
    console.give(DAX).fitted()
    expect(problem).to_be_hidden()


def test_a_fit_of_what_no_model_is_says_that_it_is_poor_and_shows_where(console: Console) -> None:
    rows = [{**row, "mid_iv": 0.9 if i % 2 else 0.1} for i, row in enumerate(dax())]
    console.give(("absurd.csv", as_csv(rows))).fitted()
    assert console.text("#badge") == "converged, a poor fit"
    assert "poor fit" in console.text("#warnings")
    assert console.page.locator("#arbitrage tbody tr").count() > 0
    assert "on a bound" in console.text("#message")
    console.picture("poor")


def test_a_chain_is_a_surface_with_its_forwards_and_what_is_asked_can_be_answered(console: Console) -> None:
    console.page.select_option("#example", CHAIN.name)
    console.fitted()
    assert console.page.locator("#made tbody tr").count() == 5
    assert "put-call parity" in console.text("#made")
    assert "no bid" in console.text("#excluded")
    # The prices are Heston's, rounded to 0.05.
    assert float(console.text("#figures dd >> nth=0").split()[0]) < 10.0
    console.picture("chain")
    rows = [
        {**{name: cell for name, cell in row.items() if name != "forward"}, "spot": row["forward"]} for row in dax()
    ]
    console.give(("spot.csv", as_csv(rows)))
    expect(console.page.locator("#problem")).to_contain_text("`rate` must be given")
    expect(console.page.locator("#intake-asked input")).to_be_focused()
    console.picture("asked")
    console.page.keyboard.type("0.0357")
    console.page.keyboard.press("Enter")
    console.fitted()
    expect(console.page.locator("#summary-title")).to_contain_text("DAX")


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("chain", 0)
    rows = [line.split(",") for line in CHAIN.read_text().splitlines()]
    for i, row in enumerate(rows):
        sheet.append([*row[:3], *(map(float, row[3:]) if i else row[3:])])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(str(CHAIN)), file)
    return file.getvalue()


def german() -> bytes:
    return CHAIN.read_bytes().replace(b",", b";").replace(b".", b",")


def test_each_format_becomes_a_surface(console: Console) -> None:
    files = {
        "tabs.tsv": CHAIN.read_bytes().replace(b",", b"\t"),
        "german.csv": german(),
        "book.xlsx": workbook(),
        "columns.parquet": parquet(),
        "request.json": (ROOT / "examples" / "dax_20020705.json").read_bytes(),
    }
    for name, content in files.items():
        console.give((name, content))
        label = "DAX 2002-07-05" if name == "request.json" else name.partition(".")[0]
        expect(console.page.locator("#summary-title")).to_contain_text(label)
        console.fitted()
        assert console.text("#badge") == "converged", name


def test_pasted_quotes_and_several_panels_of_a_file(console: Console) -> None:
    rows = [{**row, "underlying": name} for name in ("ONE", "TWO") for row in dax()]
    console.page.click("#paste-box summary")
    console.page.fill("#paste", as_csv(rows).decode())
    console.page.click("#paste-use")
    console.fitted()
    assert console.page.locator("#panel option").all_inner_texts() == ["ONE 2002-07-05", "TWO 2002-07-05"]
    console.page.select_option("#panel", "1")
    expect(console.page.locator("#summary-title")).to_contain_text("TWO")


def test_what_is_taken_along_runs_as_it_stands(console: Console, tmp_path: Path) -> None:
    console.give(DAX).fitted()
    answer = json.loads(console.saved("#save-result"))
    rows = list(csv.DictReader(io.StringIO(console.saved("#save-quotes").decode())))
    assert len(rows) == 104
    residuals = [
        float(row["model_iv"]) - float(row["mid_iv"])
        for row in rows
        if row["model_iv"] and not row["note"].startswith("vega")
    ]
    assert 1e4 * np.sqrt(np.mean(np.square(residuals))) == pytest.approx(answer["fit"]["rmse_bp"], rel=1e-6)
    for summary in ("The request as curl", "The request in Python"):
        console.page.click(f"summary:has-text('{summary}')")
    sent = subprocess.run(["sh", "-c", console.text("#curl")], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(sent.stdout)["parameters"] == answer["parameters"]
    (tmp_path / "snippet.py").write_text(console.text("#python"))
    run = subprocess.run([sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert str(answer["parameters"]["kappa"]) in run.stdout
    assert console.saved("[data-figure=smiles-figure]")[:4] == b"\x89PNG"


def test_with_keys_the_page_asks_for_one_and_keeps_it_for_its_tab_alone(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_key(["desk", "calibrate", "price"])
    made = capsys.readouterr()
    key = made.err.split()[-1]
    (tmp_path / "keys.json").write_text(made.out)
    # And with hardly any time for a fit.
    server = Server(api_keys=tmp_path / "keys.json", max_work=500)
    try:
        server.until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200, 300)
        window = browser.new_context(**WINDOW)
        console = Console(window, server)
        page = console.page
        for given in ("wrong", key):
            expect(page.locator("#key-dialog")).to_be_visible()
            page.fill("#key", given)
            page.keyboard.press("Enter")
        console.ready().give(DAX).fitted()
        assert console.text("#badge").startswith("time was up")
        assert "budget" in console.text("#message")
        console.picture("exhausted")
        assert "$CALIBRANT_KEY" in (page.locator("#curl").text_content() or "")
        assert key not in page.content()
        assert key not in str(page.evaluate("() => JSON.stringify(localStorage)"))
        other = Console(window, server)
        expect(other.page.locator("#key-dialog")).to_be_visible()
        other.close()
        console.close()
    finally:
        server.kill()


def test_by_the_keyboard_alone_an_example_is_fitted(console: Console) -> None:
    page = console.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.locator("#example").evaluate("(element) => element === document.activeElement"):
            break
    else:
        pytest.fail("The examples are not reached.")
    page.keyboard.press("ArrowDown")
    console.fitted()
    # What changed is told to who cannot see it.
    assert "heston converged" in (page.locator("#status").text_content() or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, server: Server, scheme: Any) -> None:
    assert AXE.exists(), "axe-core is missing: .ci/provision installs it"
    # The page lets no script in but its own; what is looked at is the same.
    console = Console(browser.new_context(**WINDOW, color_scheme=scheme, bypass_csp=True), server).ready()
    page = console.page
    page.add_script_tag(path=str(AXE))

    def faults() -> list[str]:
        found = page.evaluate("() => axe.run()")["violations"]
        return [
            f"{each['id']} ({each['impact']}): {node['html'][:200]} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    assert not faults()
    console.give(("gaps.csv", as_csv(with_gaps()))).fitted()
    page.click("#keep")
    for summary in page.locator("summary:visible").all():
        summary.click()
    page.select_option("#model", "bates")
    console.fitted("bates")
    assert not faults()
    console.picture(f"axe_{scheme}")
    console.give(("bad.csv", b"a,b\n1,2\n"))
    expect(page.locator("#problem")).to_be_visible()
    page.click("#key-open")
    assert not faults()
    console.close()


def test_the_page_of_the_api_needs_nothing_from_outside_and_asks_the_service(
    context: BrowserContext, server: Server
) -> None:
    console = Console(context, server, "/docs")
    page = console.page
    page.click("#operations-Calibration-calibrate_v1_calibrate_post .opblock-summary-control")
    page.click("#operations-Calibration-calibrate_v1_calibrate_post button.execute")
    expect(page.locator(".live-responses-table tr.response td.response-col_status").first).to_contain_text("200")
    console.picture("docs")
    console.close()
