"""The rules of pruning and signing by numpy alone, as the documentation states them."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

# Averages of gradients, and of their squares, in the optimizers of torch.
GRADIENTS = ("momentum_buffer", "exp_avg", "grad_avg")
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")

Masks = dict[str, Tensor]


def numbers(tensor: Tensor) -> np.ndarray:
    """Return a tensor as float64, in one dimension; every float32 and bfloat16 is one exactly."""
    return tensor.detach().double().reshape(-1).numpy()


def how_many(live: int, total: int, amount: float | None, density: float | None) -> int:
    return live - round(amount * live) if amount is not None else round(density * total)


def keep_highest(
    scores: Mapping[str, Tensor],
    live: Mapping[str, Tensor],
    keep: int | Mapping[str, int],
    seed: int | None = None,
) -> Masks:
    """Keep the highest of the live entries.

    Of equal ones those with the highest words of the seed by their upper 30 bits stay, and of
    those, or without a seed, those of the lower index, in the given order.
    """
    if isinstance(keep, Mapping):
        return {n: keep_highest({n: scores[n]}, {n: live[n]}, keep[n], seed)[n] for n in scores}
    flat = np.concatenate([numbers(each) for each in scores.values()])
    places = np.flatnonzero(np.concatenate([live[n].reshape(-1).numpy() for n in scores]))
    drawn = np.zeros(flat.size, dtype=np.int64)
    if seed is not None:
        drawn = np.concatenate([words(seed, n, each.numel()) >> 2 for n, each in scores.items()])
    order = np.lexsort((-drawn.astype(np.int64)[places], -flat[places]))
    kept = np.zeros(flat.size, dtype=bool)
    kept[places[order[:keep]]] = True
    masks, start = {}, 0
    for name, score in scores.items():
        stop = start + score.numel()
        masks[name] = torch.from_numpy(kept[start:stop].copy()).reshape(score.shape)
        start = stop
    return masks


def draw_seed(generator: torch.Generator | None) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def words(seed: int, name: str, count: int) -> np.ndarray:
    """Return the first 32-bit words of a weight: Philox, keyed by the hash of seed and name."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    stream = np.random.Philox(key=int.from_bytes(digest, "little"), counter=0)
    return stream.random_raw(count // 2 + 1).astype("<u8").view("<u4")[:count]


def survivors(tensor: Tensor, mask: Tensor) -> np.ndarray:
    return numbers(tensor)[mask.reshape(-1).numpy()]


def survivor_words(seed: int, masks: Mapping[str, Tensor]) -> np.ndarray:
    """Return the words of survivors, weight after weight."""
    drawn = [words(seed, n, m.numel())[m.reshape(-1).numpy()] for n, m in masks.items()]
    return np.concatenate(drawn)


def flip_some(
    signs: np.ndarray, fraction: float, masks: Mapping[str, Tensor], generator: torch.Generator
) -> np.ndarray:
    """ε: flip exactly the fraction, those with the highest words by their upper 30 bits."""
    keys = (survivor_words(draw_seed(generator), masks) >> 2).astype(np.int64)
    chosen = np.argsort(-keys, kind="stable")[: round(fraction * signs.size)]
    flipped = signs.copy()
    flipped[chosen] *= -1
    return flipped


def toss_smallest(
    signs: np.ndarray,
    magnitudes: np.ndarray,
    fraction: float,
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
    ties: str,
) -> np.ndarray:
    """δ: a coin, the highest bit of its word, for each of the smallest magnitudes."""
    coins = survivor_words(draw_seed(generator), masks) >> 31
    drawn = np.zeros(signs.size, dtype=np.int64)
    if ties == "random":
        drawn = (survivor_words(draw_seed(generator), masks) >> 2).astype(np.int64)
    chosen = np.lexsort((-drawn, magnitudes))[: round(fraction * signs.size)]
    tossed = signs.copy()
    tossed[chosen] = coins[chosen].astype(np.int64) * 2 - 1
    return tossed


def references(
    strategy: str,
    mix: float,
    phi: float,
    init: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Return the signs that a strategy starts from, of the survivors of each weight."""
    seed = draw_seed(generator) if strategy == "gradual" else 0
    signs = {}
    for name, mask in masks.items():
        first, then = init[name], trained[name]
        # The centre is a number of the weight's dtype.
        before = np.where(survivors(first, mask) >= float(first.new_tensor(phi)), 1, -1)
        after = np.where(survivors(then, mask) >= float(then.new_tensor(phi)), 1, -1)
        if strategy == "gradual":
            takes_trained = survivor_words(seed, {name: mask}) < round(mix * 2**32)
            signs[name] = np.where(takes_trained, after, before)
        else:
            signs[name] = before if strategy in ("mask1", "initial") else after
    return signs


def perturbed(
    signs: Mapping[str, np.ndarray],
    perturbations: Sequence[tuple[str, float]],
    scope: str,
    trained: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Apply perturbations in order, to each weight or to all together.

    One is ("epsilon", fraction), or ("delta" or "delta, ties at random", fraction).
    """
    result: dict[str, np.ndarray] = {}
    groups = [list(signs)] if scope == "global" else [[name] for name in signs]
    for names in groups:
        together = np.concatenate([signs[name] for name in names])
        magnitudes = np.concatenate([np.abs(survivors(trained[n], masks[n])) for n in names])
        mine = {name: masks[name] for name in names}
        for kind, fraction in perturbations:
            if kind == "epsilon":
                together = flip_some(together, fraction, mine, generator)
            else:
                ties = "random" if "random" in kind else "index"
                together = toss_smallest(together, magnitudes, fraction, mine, generator, ties)
        start = 0
        for name in names:
            result[name] = together[start : start + signs[name].size]
            start += signs[name].size
    return result


def factors(weight: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return m = √(α + √(w² + α²)) and v = w / m in float64, α = β/2, rounded to the weight's."""
    wide, alpha = numbers(weight), beta / 2
    m = torch.from_numpy(np.sqrt(alpha + np.sqrt(wide**2 + alpha**2))).to(weight.dtype)
    v = torch.from_numpy(wide / m.double().numpy()).to(weight.dtype)
    return m.reshape(weight.shape), v.reshape(weight.shape)


class Stream:
    """L'Ecuyer's combined generator, in Python's integers."""

    def __init__(self, first: int, second: int) -> None:
        self.state = (first, second)
        self.alpha = 1.0
        self.redraw = True

    def draw(self) -> None:
        first, second = self.state
        first, second = first * 40014 % 2147483563, second * 40692 % 2147483399
        self.state = (first, second)
        # As the models do: an int64 becomes a float32, and is scaled by a power of two.
        self.alpha = float(np.float32((first - second) % 2147483562) * np.float32(2.0**-31))
