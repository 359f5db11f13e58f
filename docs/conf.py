"""Sphinx configuration."""

import ast
import inspect
import os
import re
import textwrap
from pathlib import Path
from typing import Any

# Before torch: the examples are small, and threads that wait for each other make them slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sphinx

import polarity

HERE = Path(__file__).parent

project = "polarity"
author = "The polarity developers"
copyright = "The polarity developers"
version = release = polarity.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
templates_path = ["_templates"]
# The sources of the gallery; what is rendered from them lies in docs/gallery.
exclude_patterns = ["_build", "_templates", "examples", "inventories"]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # every example is run
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,  # times differ by machine: not part of the page
    "plot_gallery": True,
    # Names of polarity in an example lead to their pages, and these list the examples.
    "doc_module": ("polarity",),
    "reference_url": {"polarity": None},
    "backreferences_dir": "gallery/backreferences",
}

# Other projects' names, from files that docs/inventories/write.py wrote: nothing is fetched.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "matplotlib": ("https://matplotlib.org/stable/", "inventories/matplotlib.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.inv"),
}

autodoc_member_order = "bysource"
# Their integrations are documented where these packages are not installed.
autodoc_mock_imports = ["accelerate", "lightning", "pytorch_lightning", "transformers"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# Every name in a signature or a docstring leads somewhere. Sphinx 8, the last for Python 3.10, does
# not find the pages of type aliases, and writes out what they stand for.
nitpicky = sphinx.version_info >= (9,)
nitpick_ignore = [
    ("py:meth", "step"),  # in the first line of a class, which a table of names repeats
    ("py:class", "polarity.parametrizations.places.Places"),
    ("py:class", "polarity.targets.defaults.Use"),
    ("py:class", "Schedule"),  # in docs/types.md: any object with three methods
]
napoleon_use_rtype = False
# Types that signatures name and docs/types.md explains.
autodoc_type_aliases = {
    name.split(".")[-1]: name
    for name in re.findall(r"py:type:: ([\w.]+)", (HERE / "types.md").read_text("utf-8"))
}
# Names that differ in nothing but case share a file where a file system does not tell them apart.
autosummary_filename_map = {"polarity.Summary": "polarity.Summary_"}
# Classes of which a page shows these members only: the others are not for users.
autosummary_context = {
    "chosen_members": {
        "polarity.Delta": "__call__",
        "polarity.Epsilon": "__call__",
        "polarity.MaskedWeight": "forward, right_inverse",
        "polarity.NormInterp": "forward, right_inverse",
        "polarity.RewindPoint": "capture, restore_weights, restore_schedule, save, load",
        "polarity.SignInMW": "forward, right_inverse",
        "polarity.SoftThreshold": "forward, right_inverse, threshold",
        "polarity.SurvivorWeight": "dense",
        # Their trainers call the rest.
        "polarity.integrations.lightning.SparsityCallback": "",
        "polarity.integrations.transformers.SparseTrainer": "train",
        "polarity.integrations.transformers.SparsityCallback": "",
        "polarity.deploy.SparseLinear": "forward, weight",
        "polarity.parametrizations.SharedAlpha": "draw_",
        "polarity.targets.search.Target": "name, module, tensor_name, shape, mask, survivors",
    }
}

html_theme = "furo"
html_title = "polarity"
html_static_path = ["_static"]
html_css_files = ["polarity.css"]
copybutton_exclude = ".linenos, .gp, .go"  # not the prompts, nor what the code printed


def annotations_as_written(app: Any, obj: Any, bound_method: bool) -> None:
    """Give a function the annotations of its source, in which a type keeps the name it has there.

    Python has replaced `Selector` by what it stands for, and `autodoc_type_aliases` finds names in
    strings only.
    """
    if not inspect.isfunction(obj):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, SyntaxError, IndexError):  # generated, as the __init__ of a dataclass
        return
    if isinstance(tree, ast.FunctionDef):
        given = tree.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        found = {each.arg: each.annotation for each in every if each and each.annotation}
        if tree.returns:
            found["return"] = tree.returns
        obj.__annotations__ = {name: ast.unparse(node) for name, node in found.items()}


def aliases_by_name(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str, str]:
    """Write `Selector | None` where Sphinx writes what it keeps of a name in a union."""
    return tuple(
        re.sub(r"TypeAliasForwardRef\('([\w.]+)'\)", r"\1", each) if each else each
        for each in (signature, returned)
    )


def setup(app: Any) -> None:
    """Connect what this configuration adds to Sphinx."""
    app.connect("autodoc-before-process-signature", annotations_as_written)
    app.connect("autodoc-process-signature", aliases_by_name)
