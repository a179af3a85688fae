"""The units of a backlog one after the other, by this process or by the machines of a cluster.

Workers only compute: they send the content of a part to the process that was started, which alone writes. So workers
that outlive it after a kill cannot meet the files of the run that goes on, and machines share the quotes but no folder
of results.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from ..cluster import as_finished, connected
from ..network import ArtefactError
from .parts import encoded, opened
from .plan import Source, Unit, open_source, plan_of, reads_of
from .settings import Settings
from .unit import calibrated

_RETRIES = 4
"""Times that a unit is given to another worker after one has died over it, before it is left for the next run."""
_MANY_READS = 3.0


class Made(NamedTuple):
    """A unit that is done."""

    unit: Unit
    content: bytes
    n_panels: int
    set_aside: Counter[str]


class State(NamedTuple):
    """How far a run is."""

    n_units: int
    """Of the whole backlog."""
    n_units_done: int
    """Those of earlier runs included."""
    n_quotes: int
    """Of the units that this run has to do."""
    n_quotes_done: int
    n_panels: int
    """Done by this run."""
    set_aside: Counter[str]
    """Of them without an answer, by reason."""
    seconds: float


class UnitsLost(RuntimeError):
    """Workers died over units again and again; all others are done."""


def backfill(
    quotes: Path,
    out: Path,
    settings: Settings,
    *,
    ray_address: str | None = None,
    workers: int = 1,
    say: Callable[[str], None],
    show: Callable[[State], None],
) -> State:
    """Calibrate every panel of a table of quotes that is not in the folder yet.

    ray_address  of a Ray cluster, or "local" to start one; None for this process alone
    workers      processors of the local cluster
    say          is told what should be known once
    show         is told of each unit that is done
    raises       InvalidInput for columns, settings or a folder that cannot be used; UnitsLost; OSError; ArtefactError
    """
    source = open_source(quotes)
    document = {**settings.document(), "quotes": {"n_quotes": source.n_quotes, "sha256": source.digest}}
    with opened(out, document) as folder:
        if document["model_version"] is None:
            say("no network or no ONNX Runtime, starting from the shape of the surface")
        if source.ignored:
            say(f"columns ignored: {', '.join(source.ignored)}")
        say(f"planning over {source.n_quotes:,} quotes in {len(source.files)} files")
        units = plan_of(source, settings.block)
        missing = [unit for unit in units if not folder.has(unit)]
        say(f"{len(units) - len(missing):,} of {len(units):,} units are there")
        if (reads := reads_of(missing, source)) > _MANY_READS:
            say(f"each row group is read {reads:.0f} times: quotes sorted by underlying and as_of are read once")
        made = _by_itself(source, missing, settings, document)
        if ray_address is not None:
            made = _by_ray(source, missing, settings, document, ray_address, workers)
        n_quotes = sum(unit.n_quotes for unit in missing)
        state = State(len(units), len(units) - len(missing), n_quotes, 0, 0, Counter(), 0.0)
        began = monotonic()
        for unit, content, n_panels, set_aside in made:
            folder.write(unit, content)
            state = state._replace(
                n_units_done=state.n_units_done + 1,
                n_quotes_done=state.n_quotes_done + unit.n_quotes,
                n_panels=state.n_panels + n_panels,
                set_aside=state.set_aside + set_aside,
                seconds=monotonic() - began,
            )
            show(state)
    if state.n_units_done < state.n_units:
        lost = state.n_units - state.n_units_done
        raise UnitsLost(f"workers died {_RETRIES + 1} times over {lost} units; the same command tries them again")
    return state


def _by_itself(source: Source, units: list[Unit], settings: Settings, document: Mapping[str, Any]) -> Iterator[Made]:
    for unit in units:
        yield made_of(source, unit, settings, document)


def _by_ray(
    source: Source, units: list[Unit], settings: Settings, document: Mapping[str, Any], address: str, workers: int
) -> Iterator[Made]:
    if not units:
        return
    with connected(address, workers) as ray:
        shared = ray.put((source, settings, document))
        remote = ray.remote(max_retries=_RETRIES)(made_by_worker)
        for task in as_finished(ray, (remote.remote(shared, unit) for unit in units)):
            try:
                yield ray.get(task)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError:
                # The worker, its machine or its memory has gone: Ray has tried elsewhere, and the others go on.
                continue


def made_by_worker(shared: tuple[Source, Settings, Mapping[str, Any]], unit: Unit) -> Made:
    """raises  ArtefactError if this machine would give other answers than the one that sends the unit"""
    source, settings, document = shared
    own = settings.document()
    if other := [name for name, value in own.items() if document[name] != value]:
        raise ArtefactError(f"this machine has another {' and '.join(other)} than the one that sends the units")
    return made_of(source, unit, settings, document)


def made_of(source: Source, unit: Unit, settings: Settings, document: Mapping[str, Any]) -> Made:
    """The unit, calibrated."""
    table, set_aside = calibrated(source, unit, settings, settings.release())
    return Made(unit, encoded(table, document, unit), table.num_rows, set_aside)
