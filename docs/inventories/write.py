"""Write the inventories: where other projects' documentation explains the names that ours uses.

A build of the documentation links `torch.nn.Module` by `torch.inv` and fetches nothing. A name that
a page uses and no inventory has is a warning, and warnings fail `make docs`: add it below, and run

    python docs/inventories/write.py
"""

import zlib
from pathlib import Path

HERE = Path(__file__).parent
# By project: pages, with "{}" for a name's own page, and the names with their kind.
PAGES: dict[str, dict[str, dict[str, str]]] = {
    "python": {
        "library/collections.abc.html": {
            "collections.abc.Callable": "class",
            "collections.abc.Iterable": "class",
            "collections.abc.Mapping": "class",
            "collections.abc.Sequence": "class",
        },
        "library/functions.html": dict.fromkeys(("bool", "float", "int", "object"), "class"),
        "library/stdtypes.html": dict.fromkeys(("dict", "list", "str", "tuple"), "class"),
        "library/constants.html": {"None": "data"},
        "library/contextlib.html": {"contextlib.AbstractContextManager": "class"},
        "library/typing.html": {"typing.Any": "data", "typing.Literal": "data"},
        "library/pathlib.html": {"pathlib.Path": "class"},
    },
    "matplotlib": {
        "api/_as_gen/{}.html": {
            "matplotlib.axes.Axes": "class",
            "matplotlib.figure.Figure": "class",
            "matplotlib.lines.Line2D": "class",
        },
    },
    "numpy": {"reference/generated/{}.html": {"numpy.ndarray": "class"}},
    "torch": {
        "generated/{}.html": {
            "torch.Generator": "class",
            "torch.nn.Linear": "class",
            "torch.nn.Module": "class",
            "torch.nn.functional.cross_entropy": "function",
            "torch.nn.parameter.Parameter": "class",
            "torch.optim.lr_scheduler.LRScheduler": "class",
        },
        "optim.html": {"torch.optim.Optimizer": "class"},
        "size.html": {"torch.Size": "class"},
        "tensor_attributes.html": {"torch.device": "class", "torch.dtype": "class"},
        "tensors.html": {"torch.Tensor": "class"},
    },
}
# Where a class says that it is from, and the name under which it is documented.
ELSEWHERE = {
    "python": {"pathlib._local.Path": "pathlib.Path"},
    "matplotlib": {"matplotlib.axes._axes.Axes": "matplotlib.axes.Axes"},
    "numpy": {},
    "torch": {
        "torch._C.Generator": "torch.Generator",
        "torch.nn.modules.linear.Linear": "torch.nn.Linear",
        "torch.nn.modules.module.Module": "torch.nn.Module",
        "torch.optim.optimizer.Optimizer": "torch.optim.Optimizer",
    },
}


def inventory(project: str) -> bytes:
    """Return an inventory in the format that Sphinx reads, version 2."""
    found = {
        name: f"py:{kind} 1 {page.format(name)}#{name} -"
        for page, names in PAGES[project].items()
        for name, kind in names.items()
    }
    found |= {name: found[public] for name, public in ELSEWHERE[project].items()}
    lines = "".join(f"{name} {entry}\n" for name, entry in sorted(found.items()))
    header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    header += "# The remainder of this file is compressed using zlib.\n"
    return header.encode() + zlib.compress(lines.encode(), 9)


if __name__ == "__main__":
    for project in PAGES:
        (HERE / f"{project}.inv").write_bytes(inventory(project))
