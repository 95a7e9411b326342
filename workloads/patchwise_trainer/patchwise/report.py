"""Says what is done: the progress line that status shows, and the report, whole after each epoch."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from . import curves
from .job import Job, Label


def learned_nothing(label: Label, loss: float, recall: Optional[float], share: float) -> Optional[str]:
    """A warning, or None. `share`: of the pixels that were measured, those that belong to the layer. Whoever knows no more
    than that, and says the same of each pixel, has its entropy as loss."""
    guess = -sum(each * math.log(each) for each in (share, 1 - share) if each > 0)
    if recall and loss < guess:
        return None
    if recall:
        return (
            f'"{label.model}" has learned next to nothing: in the patches that were held out it knows the layer '
            f'"{label.layer}" no better than a guess that is the same for each pixel. Allow more epochs or samples.'
        )
    return (
        f'"{label.model}" has learned nothing: at a probability of one half it finds no pixel of the layer "{label.layer}" '
        "in the patches that were held out. Do not use it. Draw more of the layer, or allow more epochs or samples."
    )


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def partly_opaque(layer: str, partly: int, opaque: int) -> str:
    return (
        f'The layer "{layer}" has {partly} pixels with an alpha of 1 to 254 beside {opaque} opaque ones (alpha 255). They '
        "were taken not to belong to it; make them opaque if they do."
    )


@dataclass
class LabelReport:
    """`state`: waiting, training, complete, or stopped. What is not known yet is left out."""

    label: Label
    layer_pixels: int
    state: str = "waiting"
    facts: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.label.model, "layer": self.label.layer, "state": self.state, "layer_pixels": self.layer_pixels,
            **self.facts, "history": self.epochs,
        }  # fmt: skip


class Report:
    """Told what happens; writes it down at once, so that the report is there however the job ends."""

    def __init__(self, job: Job, layer_pixels: Mapping[str, int], environment: Mapping[str, str] = os.environ) -> None:
        self._job = job
        self._begun = time.monotonic()
        self._progress = environment.get("BATCHFERRY_PROGRESS")
        self.facts: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.labels = [LabelReport(label, layer_pixels[label.layer]) for label in job.labels]

    def begin(self, index: int, **facts: Any) -> None:
        label = self.labels[index]
        label.state = "training"
        label.facts.update(facts)
        self._say(index, 0.0, f"{label.label.model}: epoch 1/{self._job.settings.epochs}")
        self.write()

    def epoch(self, index: int, epoch: Any) -> None:
        label, most = self.labels[index], self._job.settings.epochs
        label.epochs.append({name: _rounded(value) for name, value in asdict(epoch).items()})
        left = self._seconds_left(index, epoch)
        self.facts["estimated_seconds_at_most"] = _rounded(time.monotonic() - self._begun + left)
        accuracy = epoch.validation_accuracy
        words = (
            f"{label.label.model}: epoch {epoch.number}/{most}, accuracy {accuracy:.3f}, at most {duration(left)} left"
        )
        self._say(index, epoch.number / most, words)
        self.write()

    def _seconds_left(self, index: int, epoch: Any) -> float:
        """If no model ends early, and each sample takes as long as those of this epoch; without the picture at the end."""
        most = self._job.settings.epochs
        planned = [min(label.layer_pixels, self._job.settings.samples) for label in self.labels]
        later = sum(planned[index + 1 :]) * most / max(1, planned[index])
        return float(epoch.seconds * (most - epoch.number + later))

    def complete(self, index: int, **facts: Any) -> None:
        label = self.labels[index]
        label.state = "complete"
        label.facts.update({name: _rounded(value) for name, value in facts.items()})
        self._say(index, 1.0, f"{label.label.model}: complete")
        self.write()
        if self._job.curves is not None:
            curves.draw(
                [(each.label.model, each.epochs, each.facts.get("best_epoch")) for each in self.labels],
                self._job.curves,
            )

    def warn(self, sentence: str) -> None:
        """For whoever gets the models: in the report, and in the job's log."""
        self.warnings.append(sentence)
        print(f"Warning: {sentence}", flush=True)
        self.write()

    def card(self, index: int) -> dict[str, Any]:
        """What a model's file says of itself: enough to know years later what it takes, and what it is good for."""
        label = self.labels[index]
        return {
            "model": label.label.model, "layer": label.label.layer, "layer_pixels": label.layer_pixels, **label.facts,
            "takes": "patches of height x width x 3, blue first, as (255 - x) / 255", "settings": asdict(self._job.settings),
            "gives": "for each pixel the probability that it belongs to the layer", **self.facts,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip

    def stop(self) -> str:
        """How far it got, in a sentence."""
        training = next((label for label in self.labels if label.state == "training"), None)
        complete = sum(label.state == "complete" for label in self.labels)
        where = ""
        if training is not None:
            training.state = "stopped"
            done = len(training.epochs)
            kept = (
                f"the best of its {done} epochs is kept"
                if done
                else "it had no whole epoch, so there is no model of it"
            )
            where = f", and {training.label.model} was in epoch {done + 1} of {self._job.settings.epochs}: {kept}"
        said = f"Stopped before the end: {complete} of {len(self.labels)} models were complete{where}."
        self.facts["stopped"] = said
        self.write()
        return said

    def write(self) -> None:
        if self._job.report is None:
            return
        finished = all(label.state == "complete" for label in self.labels) and "stopped" not in self.facts
        report = {
            "finished": finished,
            "warnings": self.warnings,
            **self.facts,
            "settings": asdict(self._job.settings),
            "seconds": _rounded(time.monotonic() - self._begun),
            "labels": [label.as_json() for label in self.labels],
        }
        aside = self._job.report.with_name(f"{self._job.report.name}.aside")
        aside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        os.replace(aside, self._job.report)

    def _say(self, index: int, share: float, words: str) -> None:
        """For `check.py status`: what is done of all labels, each counted in full once it has ended early."""
        if self._progress:
            with open(self._progress, "a", encoding="utf-8") as file:
                file.write(f"progress {(index + share) / len(self.labels):.3f} {words}\n")


def _rounded(value: Any) -> Any:
    """None where a number is none: a loss can become infinite, and JSON has no word for that."""
    if isinstance(value, float):
        return round(value, 5) if abs(value) < 1e12 else None
    return value
