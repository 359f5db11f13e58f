"""One seed of one setting: finds tickets, trains contestants, measures barriers, each result once.

A run asks for what it needs, and what is not on disk is computed: a final training asks for the
network of its ticket's round, a barrier for two finally trained ones. So a sweep that was killed
goes on at its last finished round or training, and results whose networks were deleted stay valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import polarity as pol

from ...harness.committed import found_result
from ...harness.recipes import Recipe
from ...harness.results import (
    Result,
    finite,
    new_result,
    now,
    result_path,
    write_result,
)
from ...harness.settings import same_named
from . import loops
from .config import AwsConfig
from .contestants import CONTESTANTS, PAIRS
from .gem_miner import gem_miner
from .images import Images, calibration, evaluate, train
from .loops import Plan
from .networks import masked_network, norm_parameters
from .starts import start
from .states import (
    State,
    is_saved,
    read_state,
    state_path,
    write_state,
)

Record = dict[str, Any]
# What the result of a final training states of its last epoch.
_FINAL = ("test_accuracy", "test_loss", "train_loss", "train_accuracy")


@dataclass
class Pipeline:
    """Where the runs of one setting and seed take place.

    Attributes:
        data: the images, on the configurations' device.
        out: folder of the result files; networks lie in `states` below it.
        on_result: called with the path of each result as it is written.
        compile: as for `recipe_training.train`.
        graphs: as for `recipe_training.train`.
    """

    data: Images
    out: Path
    on_result: Callable[[Path, Result], None] | None = None
    compile: bool | str = False
    graphs: bool = False

    def result(self, config: AwsConfig) -> Result:
        """Return the result of a run, read or computed."""
        found = found_result(self.out, config)
        return self._compute(config) if found is None else found

    def _compute(self, config: AwsConfig) -> Result:
        run = {"rounds": self._find, "final": self._train_finally, "barrier": self._barrier}
        started, begun = now(), time.perf_counter()
        content = run[config.kind](config)
        # A resumed run counts the time of its earlier rounds too.
        seconds = content.pop("seconds", None) or time.perf_counter() - begun
        found = found_result(self.out, config)
        if found is not None:  # only its network was missing
            return found
        content = {"density": config.density, **content}
        result = new_result(config, self.data.facts(), content, started=started, seconds=seconds)
        path = result_path(self.out, config)
        write_result(path, result)
        if self.on_result is not None:
            self.on_result(path, result)
        return result

    # Finding ------------------------------------------------------------------------------------

    def _find(self, config: AwsConfig) -> Result:
        """Perform all rounds of a finder; its network is saved after each."""
        recipe, model = config.recipe, self._network(config, "init")
        done = self._last_saved(config)
        saved = None if done < 0 else self._saved(config, done)
        generators = {"rounds": self._generator(config, "rounds")}
        records = list(saved.records) if saved is not None else []
        finder = self._finder(config, model, generators, saved, done)
        while True:
            begun = time.perf_counter()
            found = next(finder, None)
            if found is None:
                break
            k, network, extra = found
            loss, accuracy = evaluate(network, self.data)
            records.append(
                {
                    "round": k,
                    **_count(network),
                    "epochs": recipe.round_epochs if k else recipe.warmup_epochs,
                    "test_loss": finite(loss),
                    "test_accuracy": accuracy,
                    "seconds": time.perf_counter() - begun,
                    **extra,
                }
            )
            alphas = pol.norm_alpha_state(network) if config.subject == "aws" else {}
            write_state(
                state_path(self.out, config, k), State.of(network, generators, records, alphas)
            )
        return {"records": records, "seconds": sum(record["seconds"] for record in records)}

    def _finder(
        self,
        config: AwsConfig,
        model: nn.Module,
        generators: dict[str, torch.Generator],
        saved: State | None,
        done: int,
    ) -> Iterator[tuple[int, nn.Module, Record]]:
        """Drive a loop of `loops`, from the saved round on where there is one."""
        name, plan = config.subject, Plan(**same_named(config.recipe, Plan))
        if name == "gem_miner":
            yield from self._mined(config, model, plan, generators["rounds"], done)
            return

        def train_round(network: nn.Module, epochs: int) -> None:
            # A new optimizer at the constant peak rate, as `train` makes them.
            self._train(config, network, config.recipe.inside.scaled(epochs), generators["rounds"])

        if name == "aws":
            pol.interpolate_norms(model, generator=self._generator(config, "alpha"))
        begin = pol.RewindPoint.capture(model) if name == "imp" else None
        if saved is not None:
            saved.restore(model)
            generators["rounds"].set_state(saved.generators["rounds"])
            if name == "aws":
                pol.load_norm_alpha_state(model, saved.alphas)
            if name == "wr":
                begin = pol.RewindPoint(self._saved(config, 0).weights)
        if name in ("lrr", "aws"):
            keep = loops.learning_rate_rewinding if name == "lrr" else loops.find_a_winning_sign
            rounds = keep(model, train_round, plan, done=done)
        else:
            rewind = loops.iterative_magnitude_pruning if name == "imp" else loops.weight_rewinding
            rounds = rewind(model, train_round, plan, start=begin, done=done)
        for k in rounds:
            yield k, model, {}

    def _mined(
        self,
        config: AwsConfig,
        model: nn.Module,
        plan: Plan,
        generator: torch.Generator,
        done: int,
    ) -> Iterator[tuple[int, nn.Module, Record]]:
        """Mine masks; a network is the unmoved initial weights under the mask of a round."""
        for k, mined, masks, away in gem_miner(
            model,
            lambda *task: self._train_scores(config, generator, *task),
            plan,
            lr=config.score_lr,
            penalty=config.score_penalty,
            generator=self._generator(config, "scores"),
        ):
            if k > done:
                subnetwork = pol.mask_weights(self._network(config, "init"), masks=masks)
                _, accuracy = evaluate(mined, self.data)
                yield k, subnetwork, {"rounded_away": away, "test_accuracy": accuracy}

    def _last_saved(self, config: AwsConfig) -> int:
        """Return the last round on disk, -1 without one; Gem-Miner's scores are not saved.

        After a round that is missing or damaged all is computed anew: later runs ask for it too.
        """
        if config.subject == "gem_miner":
            return -1
        rounds = range(config.recipe.rounds + 1)
        there = [is_saved(state_path(self.out, config, k)) for k in rounds]
        return [*there, False].index(False) - 1

    def found(self, config: AwsConfig, finder: str, round: int) -> State:
        """Return the network of a finder after a round, computed where it is not on disk."""
        task = config.task("rounds", finder)
        if not is_saved(state_path(self.out, task, round)):
            self._compute(task)
        return self._saved(task, round)

    # Training -----------------------------------------------------------------------------------

    def _start(self, config: AwsConfig) -> nn.Module:
        contestant = CONTESTANTS[config.subject]
        found = fresh = None
        if contestant.finder is not None:
            state = self.found(config, contestant.finder, config.round)
            found = state.restore(self._network(config, "init"))
        if contestant.fresh is not None:
            fresh = self._network(config, contestant.fresh)
        return start(config.subject, found, fresh, official=config.official_signs)

    def _train_finally(self, config: AwsConfig) -> Result:
        """Train the network that the contestant begins with by the full schedule."""
        model = self._start(config)
        before = pol.RewindPoint.capture(model)
        recipe = config.recipe.final
        if config.subject == "dense_longer":
            rounds = config.recipe.warmup_epochs + config.round * config.recipe.round_epochs
            recipe = recipe.scaled(rounds + recipe.epochs)
        order = self._generator(config, f"order{config.order}")
        records = self._train(config, model, recipe, order)
        after = pol.RewindPoint.capture(model)
        same = {
            name: (torch.sign(before.weights[name]) == torch.sign(after.weights[name]))[mask]
            for name, mask in pol.masks(model).items()
        }
        agreeing = sum(int(each.sum()) for each in same.values())
        write_state(state_path(self.out, config), State.of(model))
        return {
            **_count(model),
            **{key: records[-1][key] for key in _FINAL},
            "epochs": recipe.epochs,
            "signs_kept": agreeing / sum(each.numel() for each in same.values()),
        }

    def trained(self, config: AwsConfig) -> State:
        """Return the network of a final training, computed where it is not on disk."""
        path = state_path(self.out, config)
        if not is_saved(path):
            self._compute(config)
        return read_state(path, config.device)

    def _train(
        self,
        config: AwsConfig,
        model: nn.Module,
        recipe: Recipe,
        generator: torch.Generator,
        **how: Any,
    ) -> list[Record]:
        # Dropout draws from the global stream: seed it for this training, then restore it.
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[] if config.device == "cpu" else None):
            torch.manual_seed(seed)
            return train(
                model,
                self.data,
                recipe,
                generator=generator,
                channels_last=True,
                bf16=config.bf16,
                compile=self.compile,
                graphs=self.graphs,
                **how,
            )

    def _train_scores(
        self,
        config: AwsConfig,
        generator: torch.Generator,
        model: nn.Module,
        epochs: int,
        optimizer: torch.optim.Optimizer,
        penalty: Callable[[nn.Module], torch.Tensor],
    ) -> None:
        recipe = replace(config.recipe.inside.scaled(epochs), lr=config.score_lr)
        self._train(config, model, recipe, generator, optimizer=optimizer, penalty=penalty)

    # Comparing ----------------------------------------------------------------------------------

    def _barrier(self, config: AwsConfig) -> Result:
        """Measure the test error between two networks, with batch-norm statistics of each point."""
        first, second = (self._end(config, *end) for end in PAIRS[config.subject])
        model = self._network(config, "init")

        def error(network: nn.Module) -> float:
            return 100.0 - evaluate(network, self.data)[1]

        path = pol.error_barrier(model, first, second, error, batches=self._calibration(config))
        return {
            "alphas": list(path.alphas),
            "errors": list(path.curve),
            "excess": list(path.excess),
            "barrier": path.barrier,
            "barrier_above_line": path.barrier_above_line,
        }

    def _end(self, config: AwsConfig, what: str, name: str, order: int) -> dict[str, torch.Tensor]:
        if what == "final":
            return self.trained(config.task("final", name, config.round, order)).weights
        weights = self.found(config, name, config.round).weights
        if what == "found":
            return weights
        model = self._network(config, "init")
        initial = pol.RewindPoint.capture(model).weights
        return {**weights, **{name: initial[name] for name in norm_parameters(model)}}

    def _calibration(self, config: AwsConfig) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(config.stream("calibration"))
        return calibration(self.data, config.recalibrate, generator)

    def _saved(self, config: AwsConfig, round: int) -> State:
        return read_state(state_path(self.out, config, round), config.device)

    def _network(self, config: AwsConfig, stream: str) -> nn.Module:
        return masked_network(
            config.recipe.arch,
            self.data.shape,
            self.data.classes,
            self._generator(config, stream),
            prune_classifier=config.prune_classifier,
            device=config.device,
        )

    @staticmethod
    def _generator(config: AwsConfig, stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(config.stream(stream))


def _count(model: nn.Module) -> Record:
    masks = pol.masks(model).values()
    survivors, total = sum(int(m.sum()) for m in masks), sum(m.numel() for m in masks)
    return {"density": survivors / total, "survivors": survivors, "total": total}
