"""What the cookbook's recipes are compared with: plain PyTorch, without polarity."""

import copy
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Run:
    """A training run whose matrices are multiplied by masks that are kept next to the model."""

    def __init__(self, model: nn.Module, makers: list[MakeOptimizer]) -> None:
        self.model, self.makers = model, makers
        self.start = copy.deepcopy(model.state_dict())
        self.masks = {n: torch.ones_like(p) for n, p in model.named_parameters() if p.ndim > 1}
        self.optimizers = [make(model) for make in makers]

    def weights(self) -> dict[str, Tensor]:
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name] * mask for name, mask in self.masks.items()}

    def train(self, x: Tensor, y: Tensor, steps: int = 5) -> None:
        for _ in range(steps):
            cross_entropy(functional_call(self.model, self.weights(), x), y).backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def prune(self, amount: float) -> None:
        """Keep the largest of the survivors, over all matrices."""
        live = sum(int(mask.sum()) for mask in self.masks.values())
        sizes = torch.cat([weight.detach().abs().flatten() for weight in self.weights().values()])
        kept = torch.zeros_like(sizes)
        kept[sizes.topk(live - round(amount * live)).indices] = 1
        parts = kept.split([mask.numel() for mask in self.masks.values()])
        for (name, mask), part in zip(self.masks.items(), parts, strict=True):
            self.masks[name] = part.view_as(mask)
        self._zero_outside()

    def rewind(self) -> None:
        self.model.load_state_dict(self.start)
        self.optimizers = [make(self.model) for make in self.makers]
        self._zero_outside()

    def averaged(self, mean: dict[str, Tensor] | None, decay: float) -> dict[str, Tensor]:
        """Return an average of what is stored; the first one is the model itself."""
        now = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        return now if mean is None else {n: mean[n].lerp(now[n], 1 - decay) for n in now}

    def assert_equal(self, model: nn.Module) -> None:
        """Expect the weights of a masked model to be those of this run."""
        ours = self.weights()
        for name, parameter in self.model.named_parameters():
            path, _, tensor = name.rpartition(".")
            theirs = getattr(model.get_submodule(path), tensor)
            torch.testing.assert_close(theirs, ours.get(name, parameter))
            if name in ours:
                assert torch.equal(theirs != 0, self.masks[name] != 0)

    def _zero_outside(self) -> None:
        parameters = dict(self.model.named_parameters())
        for name, mask in self.masks.items():
            tensors = [parameters[name].data]
            for optimizer in self.optimizers:
                state = optimizer.state.get(parameters[name], {})
                tensors += [each for each in state.values() if each.shape == mask.shape]
            for tensor in tensors:
                tensor.mul_(mask)


def with_adapters(adapted: nn.Module) -> dict[str, Tensor]:
    """Return weights plus the product of each layer's adapters, by the formula of LoRA."""
    sums = {}
    for name, layer in adapted.named_modules():
        if hasattr(layer, "lora_A"):
            up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
            # In front of a layer: one of its kind with few outputs, then one of size 1.
            product = (up.flatten(1) @ down.flatten(1)).view_as(layer.base_layer.weight)
            place = name.removeprefix("base_model.model.")
            weight = layer.base_layer.weight
            sums[f"{place}.weight"] = (weight + layer.scaling["default"] * product).detach()
    return sums


def wandb_history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that an offline run of Weights & Biases left in its file."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for data in leveldb_log(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {
                    e.key or "/".join(e.nested_key): json.loads(e.value_json)
                    for e in record.history.item
                }
            )
    return rows


def wandb_table(folder: Path) -> dict[str, Any]:
    """Return the columns and rows of the one table that was logged."""
    (path,) = folder.glob("wandb/offline-run-*/files/media/table/*.table.json")
    content = json.loads(path.read_text())
    return {"columns": content["columns"], "data": content["data"]}


def leveldb_log(content: bytes, block: int = 2**15) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, after a header of seven bytes."""
    assert content.startswith(b":W&B")
    at, record = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # too short for a header: filled with zeros
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
