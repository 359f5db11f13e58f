"""The progress of a sweep: bars on a terminal, one line per run elsewhere, or nothing."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class Progress:
    """Show a bar over the runs and, for a single process, bars over rounds and epochs.

    Args:
        runs: runs of the sweep.
        done: runs whose results were there before.
        nested: show rounds and epochs of the current run.
        quiet: show nothing.
    """

    def __init__(self, runs: int, done: int, *, nested: bool, quiet: bool) -> None:
        self._runs, self._done, self._quiet = runs, done, quiet
        # Bars would make a log file unreadable; there, finished runs get a line each.
        self._on_terminal = sys.stderr.isatty() and not quiet
        self._nested = nested and self._on_terminal
        self._bars: dict[str, tqdm[Any]] = {}

    def __enter__(self) -> Progress:
        if self._on_terminal:
            self._bars["runs"] = self._bar("runs", self._runs, 0, initial=self._done)
        elif not self._quiet and self._done:
            _line(f"{self._done} of {self._runs} runs are already there")
        return self

    def __exit__(self, *_: object) -> None:
        self._close("epochs", "rounds", "runs")

    def begin(self, run_id: str, rounds: int, epochs: int, last_round: int | None) -> None:
        """Show that a run starts, or goes on after `last_round`."""
        if self._nested:
            behind = 0 if last_round is None else last_round + 1
            self._bars["runs"].set_postfix_str(run_id, refresh=False)
            self._bars["rounds"] = self._bar("rounds", rounds + 1, 1, initial=behind)
            self._bars["epochs"] = self._bar("epochs", epochs, 2)

    def epoch(self, number: int, done: int) -> None:
        """Show that a round has `done` epochs behind it."""
        if self._nested:
            bar = self._bars["epochs"]
            bar.update(done - bar.n)

    def round(self, record: dict[str, Any]) -> None:
        """Show that a round is finished."""
        if self._nested:
            self._bars["epochs"].reset()
            accuracy, density = record["test_accuracy"], record["density"]
            self._bars["rounds"].set_postfix_str(f"{accuracy:.2f} % at density {density:.3f}")
            self._bars["rounds"].update()

    def finished(self, run_id: str, ended: str) -> None:
        """Show that a run ended, and how."""
        self._done += 1
        if self._on_terminal:
            self._close("epochs", "rounds")
            self._bars["runs"].set_postfix_str(f"{run_id}: {ended}", refresh=False)
            self._bars["runs"].update()
        elif not self._quiet:
            _line(f"[{self._done}/{self._runs}] {run_id}: {ended}")

    def _close(self, *names: str) -> None:
        for name in names:
            if name in self._bars:
                self._bars.pop(name).close()

    def _bar(self, name: str, total: int, position: int, *, initial: int = 0) -> tqdm[Any]:
        return tqdm(
            total=total,
            initial=initial,
            desc=name,
            position=position,
            leave=position == 0,
            dynamic_ncols=True,
        )


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
