"""`calibrant calibrate QUOTES`."""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from ..by_name import parameters_of
from ..errors import InvalidInput
from ..intake import outcomes_of_files
from ..models import MODELS
from ..pipeline import Assessment, assess
from ..release import release_for
from ..report import calibration_report, row_of, stages_us
from .arguments import add_options, add_settings, numbers_by_name, options_in, settings_in
from .tables import FitTable, Progress, refuse, require_format, write_rows


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "calibrate",
        help="fit a model to the quotes of files",
        description="Fit a model to each panel of files: CSV, TSV, Excel, Parquet or JSON, - for standard input. A "
        "panel has expiries, strikes, a forward and vols; of a chain of prices, or vols by delta, one is made first, "
        "as `calibrant panel` does. Panels are told apart by underlying and date.",
    )
    command.set_defaults(run=run)
    command.add_argument("quotes", type=Path, nargs="+", metavar="QUOTES")
    add_options(command)
    command.add_argument("--start", type=numbers_by_name, metavar="kappa=2,...", help="all parameters, to start from")
    command.add_argument("--json", action="store_true", help="print one line per panel, as the service answers")
    command.add_argument("--out", type=Path, metavar="FILE", help="write a row per panel: .csv, .json or .parquet")
    command.add_argument("--plot", type=Path, metavar="FIT.png", help="draw the smiles; of several panels, a file each")
    add_settings(command)


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ArtefactError, ImportError, OSError for what is wrong with all panels"""
    model = MODELS[given.model]
    options = options_in(model, given)
    start = None if given.start is None else parameters_of(model, given.start, ("--start",))
    require_format(given.out)
    if given.plot is not None:
        _require_matplotlib()
    release = release_for(model, given.network)
    began = perf_counter()
    panels = list(outcomes_of_files(given.quotes, settings_in(given)))
    reading = (perf_counter() - began) / max(len(panels), 1)
    if release is None:
        print("calibrant: no network or no ONNX Runtime, starting from the shape of the surface", file=sys.stderr)
    code = 0
    table = FitTable(model.parameters, max(len(label) for label, _ in panels))
    progress = Progress(len(panels))
    rows: list[dict[str, Any]] = []
    for i, (label, built) in enumerate(panels):
        try:
            if isinstance(built, InvalidInput):
                raise built
            assessment = assess(built.panel(), model, release, options, start)
        except InvalidInput as error:
            progress.clear()
            code = refuse(_of_panel(label, error, len(panels)))
            continue
        progress.clear()
        timing = stages_us(decode=reading, queue=0.0, **assessment.seconds._asdict())
        report = calibration_report(assessment, timing_us=timing, panel_id=label)
        if given.json:
            print(json.dumps(report, allow_nan=False))
        else:
            table.print(label, assessment)
        if given.out is not None:
            rows.append(report if given.out.suffix == ".json" else {"panel": label, **row_of(assessment)})
        if given.plot is not None:
            _draw(assessment, _plot_of(given.plot, i, len(panels)))
        progress.show(i + 1)
    progress.clear()
    if given.out is not None:
        write_rows(given.out, rows)
    return code


def _of_panel(label: str, error: InvalidInput, n_panels: int) -> InvalidInput:
    """Which panel a refusal is of, where it does not say so itself."""
    first, *others = error.problems
    if n_panels == 1 and label in first.detail:
        return error
    return InvalidInput(first._replace(detail=f"{label}: {first.detail}"), *others)


def _require_matplotlib() -> None:
    """Before the first panel is calibrated in vain.

    raises  ImportError
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'calibrant[notebook]'.") from error
    # Nobody has to be there to see it.
    matplotlib.use("agg")


def _plot_of(path: Path, i: int, n_panels: int) -> Path:
    return path if n_panels == 1 else path.with_stem(f"{path.stem}-{i + 1}")


def _draw(assessment: Assessment, path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    from ..plotting import draw_smiles

    figure = draw_smiles(assessment)[0].figure
    assert isinstance(figure, Figure)
    figure.savefig(path)
    pyplot.close(figure)
