"""Sign-In in one line on every classification model of torchvision: does it hold?

Claim: `sign_in(model)` changes no output by more than 1e-4 relative (float32), a step of SGD
reaches every converted weight, and `merge` gives back a plain model with the original keys and
exactly the outputs of the converted one. Every constructor that torchvision lists is tried, with
random weights (nothing is downloaded); one that cannot be converted is named with its reason.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness.home import pages_folder, results_folder
from .pages.section import commit as short_commit

RESULTS = results_folder("zoo") / "sign_in.json"
PAGES = pages_folder("zoo")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ZooOptions:
    """Convert every classification model of torchvision to Sign-In, and back.

    Attributes:
        models: names of constructors; all that torchvision lists if empty.
        out: the result file; the page is written from it.
        docs: folder of the page `zoo.md`.
        again: try models that are in the result file again.
        seed: of weights and images. The largest models take about 15 GiB of memory.
    """

    models: tuple[str, ...] = ()
    out: Path = RESULTS
    docs: Path = PAGES
    again: bool = False
    seed: int = 0


def main(options: ZooOptions) -> int:
    """Try the models one after the other, print a line each, and write file and page.

    The file is written after every model; a model that is in it is not tried again.
    """
    import torch
    import torchvision
    from tqdm import tqdm

    from .harness.results import git_commit, machine, versions

    every = torchvision.models.list_models(module=torchvision.models)
    known = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
    rows: dict[str, dict[str, Any]] = {row["model"]: row for row in known}
    for name in tqdm(options.models or every, desc="zoo"):
        if name in rows and not options.again:
            continue
        torch.manual_seed(options.seed)
        try:
            row = convert(name)
        except Exception as error:  # the table is there to name what fails
            row = {"model": name, "reason": f"{type(error).__name__}: {error}"}
        rows[name] = row
        tqdm.write(line(row))
        gc.collect()
        result = {
            "rows": [rows[each] for each in every if each in rows],
            "not_tried": [each for each in every if each not in rows],
            "seed": options.seed,
            "tolerance": TOLERANCE,
            "versions": versions(),
            "machine": machine("cpu"),
            "commit": git_commit(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(write_page(options.out, options.docs))
    return 0 if all(holds(row) for row in rows.values()) else 1


def convert(name: str) -> dict[str, Any]:
    """Take one model through conversion, a step of training, and merging."""
    import torch
    import torchvision

    import polarity as pol

    model = _without_chance(torchvision.models.get_model(name, weights=None))
    keys = list(model.state_dict())
    parameters = sum(each.numel() for each in model.parameters())
    images = _images(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with torch.no_grad():
        plain = model.eval()(images)
        pol.sign_in(model, optimizer=optimizer)
        converted = model(images)
        change = float((converted - plain).norm() / plain.norm())
    del plain
    output = model.train()(images)
    outputs = [output] if isinstance(output, torch.Tensor) else [o for o in output if o is not None]
    sum((each - torch.randn_like(each)).square().mean() for each in outputs).backward()
    reached = sum(
        all(bool(leaf.grad is not None and leaf.grad.any()) for leaf in target.stored)
        for target in pol.find_targets(model).values()
    )
    optimizer.step()
    with torch.no_grad():
        trained = model.eval()(images)
        moved = bool((trained != converted).any() and trained.isfinite().all())
        count = len(pol.masks(model))
        pol.merge(model, optimizer=optimizer)
        same = bool(torch.equal(model(images), trained))
    return {
        "model": name,
        "parameters": parameters,
        "weights": count,
        "image": images.shape[-1],
        "relative_change": change,
        "reached": reached,
        "moved": moved,
        "keys_equal": list(model.state_dict()) == keys,
        "merged_equal": same,
    }


def _without_chance(model: Any) -> Any:
    """Take out what is random in training, and give layers that start at zero some noise."""
    import torch
    from torchvision.ops import StochasticDepth

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | StochasticDepth):
            module.p = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # the heads of vision transformers, and biases
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def _images(model: Any) -> Any:
    """Draw two images of the smallest size that the model takes."""
    import torch

    for size in (64, 96, 224, 299):
        images = torch.randn(2, 3, size, size)
        try:
            with torch.no_grad():
                model.train()(images)
        except (RuntimeError, ValueError, AssertionError):
            continue
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
        return images
    raise ValueError("takes no image of 64, 96, 224 or 299 pixels")


def holds(row: dict[str, Any]) -> bool:
    """Return whether everything that is claimed of a model was found."""
    return (
        "reason" not in row
        and row["relative_change"] <= TOLERANCE
        and row["reached"] == row["weights"]
        and row["moved"]
        and row["keys_equal"]
        and row["merged_equal"]
    )


def line(row: dict[str, Any]) -> str:
    """Describe a model in one line for the screen."""
    if "reason" in row:
        return f"{row['model']}: {row['reason']}"
    verdict = "holds" if holds(row) else "DOES NOT HOLD"
    return (
        f"{row['model']}: {verdict}, relative change {row['relative_change']:.1e}, "
        f"{row['reached']}/{row['weights']} weights reached"
    )


def write_page(results: Path, docs: Path) -> Path:
    """Write `zoo.md` from a result file and return its path."""
    from .pages.markdown import markdown

    result = json.loads(results.read_text())
    rows: Sequence[dict[str, Any]] = result["rows"]
    body = [
        (row["model"], "", "", "", "", "", row["reason"])
        if "reason" in row
        else (
            row["model"],
            f"{row['parameters'] / 1e6:.1f} M",
            str(row["weights"]),
            f"{row['relative_change']:.1e}",
            str(row["reached"]),
            "yes" if row["keys_equal"] and row["merged_equal"] else "no",
            "" if holds(row) else "does not hold",
        )
        for row in rows
    ]
    head = ("model", "parameters", "converted", "relative change", "trained", "merged back", "note")
    count = sum(holds(row) for row in rows)
    missing = f"; not tried: {', '.join(result['not_tried'])}" if result["not_tried"] else ""
    packages = result["versions"]
    text = f"""# Sign-In on torchvision's zoo

`python -m benchmarks zoo` builds every classification model that torchvision lists, with random
weights, and takes it through `sign_in(model, optimizer=sgd)`, one step of SGD and `merge`. The
claim holds for {count} of {len(rows)}{missing}.

*converted*: weights that became a product. *relative change*: of the output in evaluation mode at
conversion, float32, norm of the difference over norm (at most {result["tolerance"]:g} is claimed).
*trained*: weights whose two factors
both received a gradient in the step of SGD. *merged back*: the keys of the `state_dict` are the
original ones in their order, and the outputs equal those of the converted model bit for bit.

{markdown(head, body)}

Dropout and stochastic depth are off and layers that torchvision starts at zero get small noise, so
that every layer contributes. Outputs are compared with the running statistics as they are built.

torch {packages.get("torch")}, torchvision {packages.get("torchvision")}, seed {result["seed"]},
two images of the smallest size each model takes; commit {short_commit(result["commit"], 7)}.
"""
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "zoo.md"
    path.write_text(text)
    return path
