"""`calibrant calibrate QUOTES`."""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from ..by_name import bounds_of, held_of, parameters_of, prior_of
from ..errors import InvalidInput
from ..intake import outcomes_of_files
from ..models import MODELS, Model
from ..options import CalibrationOptions
from ..pipeline import Assessment, assess
from ..release import Release, release_in_reach, require_release_of
from ..report import calibration_report, numbers, stages_us
from .arguments import add_settings, bounds_by_name, numbers_by_name, prior_by_name, settings_in
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
    command.add_argument("--model", choices=sorted(MODELS), default="heston")
    command.add_argument(
        "--refine", choices=("lm", "lbfgs", "none"), default="lm", help="none gives the network's answer (default: lm)"
    )
    command.add_argument("--loss", choices=("squared", "huber"), default="squared")
    command.add_argument("--fixed", type=numbers_by_name, metavar="kappa=2,...", help="parameters held at a value")
    command.add_argument("--start", type=numbers_by_name, metavar="kappa=2,...", help="all parameters, to start from")
    command.add_argument("--bounds", type=bounds_by_name, metavar="kappa=0.1:20,...", help="of any of the parameters")
    command.add_argument(
        "--prior",
        type=prior_by_name,
        metavar="kappa=2:0.5,...",
        help="means and standard deviations of any of the parameters; noise_bp=8 is that of a quote",
    )
    command.add_argument("--network", type=Path, metavar="FOLDER", help="a released version, such as networks/heston/1")
    command.add_argument("--json", action="store_true", help="print one line per panel, as the service answers")
    command.add_argument("--out", type=Path, metavar="FILE", help="write a row per panel: .csv, .json or .parquet")
    command.add_argument("--plot", type=Path, metavar="FIT.png", help="draw the smiles; of several panels, a file each")
    add_settings(command)


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ArtefactError, ImportError, OSError for what is wrong with all panels"""
    model = MODELS[given.model]
    options, start = _options(model, given)
    require_format(given.out)
    if given.plot is not None:
        _require_matplotlib()
    release = _release(model, given.network)
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
            rows.append(report if given.out.suffix == ".json" else _row(report, assessment))
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


def _options(model: Model, given: argparse.Namespace) -> tuple[CalibrationOptions, Any]:
    """raises  InvalidInput naming the flag and the parameter"""
    options = CalibrationOptions(
        refine=given.refine,
        loss=given.loss,
        bounds=None if given.bounds is None else bounds_of(model, given.bounds, ("--bounds",)),
        fixed=None if given.fixed is None else held_of(model, given.fixed, ("--fixed",)),
        prior=None if given.prior is None else prior_of(model, given.prior, ("--prior",)),
    )
    return options, None if given.start is None else parameters_of(model, given.start, ("--start",))


def _release(model: Model, folder: Path | None) -> Release | None:
    """The version asked for, else the newest released one if it is in reach and can be run, else None."""
    if folder is not None:
        return require_release_of(model, Release.load(folder))
    return release_in_reach(model)


def _row(report: dict[str, Any], assessment: Assessment) -> dict[str, Any]:
    """A panel's answer, flat."""
    calibration = assessment.calibration
    errors = dict(zip(report["standard_errors"], numbers(calibration.standard_errors), strict=True))
    fit = report["fit"]
    return {
        "panel": report["id"],
        "model": report["model"],
        **report["parameters"],
        **{f"{name}_error": error for name, error in errors.items()},
        **{name: fit[name] for name in ("rmse_bp", "max_abs_bp", "mape_pct", "n_quotes")},
        "n_excluded": len(fit["excluded"]),
        "feller_ratio": report["feller_ratio"],
        "quotes_free": assessment.quotes.free,
        "surface_free": assessment.surface.free,
        "status": report["status"],
        "start": report["start"],
        "iterations": report["iterations"],
        "out_of_domain": report["out_of_domain"],
        "at_bounds": ";".join(report["at_bounds"]),
        "warnings": ";".join(dict.fromkeys(warning["code"] for warning in report["warnings"])),
        "message": report.get("message"),
        "model_version": report["model_version"],
    }


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
