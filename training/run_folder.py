"""What a run leaves on disk: checkpoint, best network, record, and event files for TensorBoard."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from .networks import CnnTransformer, Normalisation

_CHECKPOINT = "checkpoint.pt"
_BEST = "best.pt"
_RECORD = "run.json"
_EVENTS = "events"

_LENGTH_OPTIONS = ("epochs", "cool_down", "patience", "freeze_norm")
"""Options without effect before the cool-down begins."""

_TAGS = {"loss": "training/loss", "lambda": "training/lambda", "learning_rate": "training/learning_rate"}

Epoch = dict[str, float]
"""One row of the history: a name and a number for everything measured in an epoch."""


class RunFolder:
    """One run. Its files are replaced whole, so that a kill at any time leaves those of the last finished epoch."""

    def __init__(
        self, path: Path, settings: dict[str, Any], normalisation: Normalisation, made_on: dict[str, Any]
    ) -> None:
        """
        settings  all that decides the weights, as JSON can hold it
        made_on   what else the record should say
        """
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._normalisation = normalisation
        self._made_on = made_on
        self._writer: SummaryWriter | None = None
        self.history: list[Epoch] = []

    def resume(self, states: dict[str, Any]) -> bool:
        """Load the checkpoint, if there is one, into everything with a state.

        raises  ValueError if it is of a run with other settings
        """
        if not (self._path / _CHECKPOINT).exists():
            return False
        saved = torch.load(self._path / _CHECKPOINT, weights_only=True, map_location="cpu")
        if not _may_continue(saved["settings"], self._settings, len(saved["history"])):
            raise ValueError(f"{self._path} holds a run with other settings: choose another folder")
        for name, owner in states.items():
            owner.load_state_dict(saved[name])
        self.history = saved["history"]
        return True

    def save(self, states: dict[str, Any], network: CnnTransformer) -> None:
        """Write the last epoch of the history: event files, the best network so far, the record, the checkpoint."""
        self._log(self.history[-1])
        if self.history[-1]["mean_bp"] == min(past["mean_bp"] for past in self.history):
            _replace(self._path / _BEST, {"network": network.state_dict(), "epoch": len(self.history)})
        self._write_record()
        # Last, so that a kill before it repeats the epoch and one after it goes on.
        _replace(
            self._path / _CHECKPOINT,
            {name: owner.state_dict() for name, owner in states.items()}
            | {"settings": self._settings, "history": self.history},
        )

    def load_best(self, network: CnnTransformer) -> None:
        """Give the network the weights of the best epoch."""
        network.load_state_dict(torch.load(self._path / _BEST, weights_only=True, map_location="cpu")["network"])

    def close(self) -> None:
        """End the event file."""
        if self._writer is not None:
            self._writer.close()

    def _log(self, epoch: Epoch) -> None:
        step = len(self.history)
        if self._writer is None:
            # An epoch that a kill cut between its events and its checkpoint is repeated: its first events are void.
            self._writer = SummaryWriter(str(self._path / _EVENTS), purge_step=step)
        for name, value in epoch.items():
            self._writer.add_scalar(_TAGS.get(name, f"validation/{name}"), value, step)
        self._writer.flush()

    def _write_record(self) -> None:
        record = {
            **self._settings,
            "normalisation": {name: value.tolist() for name, value in vars(self._normalisation).items()},
            "history": self.history,
            "torch": torch.__version__,
            "machine": platform.machine(),
            **self._made_on,
        }
        unfinished = (self._path / _RECORD).with_suffix(".part")
        unfinished.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(unfinished, self._path / _RECORD)


def read_record(run: Path) -> dict[str, Any]:
    """The record of a run: settings, normalisation, history."""
    record: dict[str, Any] = json.loads((run / _RECORD).read_text())
    return record


def best_weights(run: Path) -> dict[str, Any]:
    """The state of the network of the best epoch."""
    state: dict[str, Any] = torch.load(run / _BEST, weights_only=True, map_location="cpu")["network"]
    return state


def _may_continue(old: dict[str, Any], new: dict[str, Any], n_done: int) -> bool:
    """Whether a run with the new settings would have come to the same state: the same but for its length."""
    cooling = [n_done > run["options"]["epochs"] - run["options"]["cool_down"] for run in (old, new)]
    fixed = [
        {**run, "options": {k: v for k, v in run["options"].items() if k not in _LENGTH_OPTIONS}} for run in (old, new)
    ]
    return fixed[0] == fixed[1] and (old == new or not any(cooling))


def _replace(path: Path, state: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    os.replace(unfinished, path)
