"""Why a target is missed where it is: what the time goes to, and what was tried.

Numbers stay out of these texts: they are in the rows that a text names.
"""

from __future__ import annotations

REASONS = {
    "imp_prune": """
The targets in times of `torch.nn.utils.prune` come from a processor that reads memory almost twice
as fast beside what torch needs there; the rows beside one read pass carry over better. Selection
alone is exact within that limit. Of it, reading and taking magnitudes is a quarter, comparing with
both ends of the bracket an eighth, finding the few places in between a fifth, and the rest is
counting, packing and writing the mask. A whole call also writes the weights, which costs about two
passes and a half. Small models pay for Python: each layer costs as much as tens of thousands of
weights. Tried: 16-bit keys, selection by hardshrink, putmask or tables of places, scattered writes,
smaller parts for threads.
""",
    "training step with masks": """
Two rows say what a masked step cannot be cheaper than here: *an identity by parametrize*, which is
Python between a layer and its weight, and *float mask on gradients, unchecked*, which is one pass
over the gradients. (The targets come from such a hook without parametrize, on another processor.)
What is left between these rows and ours is Python for each weight: versions are compared in
forward, the weight is a view with a hook, use counts are asked in backward, and the optimizer's
step is followed; microseconds each by itself, and several times that amid a step, when matrix
products have emptied the caches. Tried: an autograd Function instead of the hook (slower); masking
by bytes (for small weights slower than the integers that are kept for them now, for large ones as
fast); handing out the leaf itself, with a hook of the leaf, which is a few hundredths faster on the
MLP, but masks what else becomes of the leaf and the gradient of the weight too: not the same
answers.
""",
    "training step with Sign-In": """
*m * v without a mask* is the least that two factors can cost as a parametrization, and ours is at
it but for Python. The rest is one product in forward, two in backward, and an optimizer that has
twice the parameters, which with SGD as it comes is about half: the rows with fused SGD have
less of it. Tried: both gradients in one pass over parts that fit a cache, and the second of them in
the memory of the incoming gradient; together they saved a few hundredths of the products, about
what calling a Function costs.
""",
    "training step with interpolated norms": """
A parametrized norm weight costs Python and two kernels on a few numbers, whatever it computes.
""",
    "reinit_signs": """
The naive version neither checks nor counts. Ours finds the survivors of each mask twice, to read
them and to write them, and takes sigma in float64: in float32 it would be off in the seventh digit
where all magnitudes are equal, as they are after a reinitialisation. Epsilon and delta draw a
32-bit word for every entry, pruned ones included, so that a draw depends on the position alone;
then epsilon selects by these words and delta by magnitude. With two threads torch shares its passes
between them; the search for survivors and the drawing are not shared.
""",
    "deploy": """
A sparse product pays where the dense one is large: with few inputs, reading the indices and filling
the output take what skipping the zeros saves. `compress` measures each layer with the rows it
really gets, as a whole, and leaves those dense that would not gain by a tenth, so that a model is
not slower than before: at 80 % nothing is swapped, and that row is the noise of two equal models.
Tried: filling and adding in two steps, writing into a buffer, other numbers of rows at a time, and
handing outputs on feature by feature from layer to layer, which gained 2 to 8 % of a ViT-S.
""",
    "two runs of MNIST": """
What two pinned processes still share is memory, its caches and this virtual machine's processor;
starting the work and collecting it takes milliseconds.
""",
    "one epoch of MNIST": """
The step itself, with its masks and Adam, is what is left of the time; images wait on the device,
and there is no Python for each of them.
""",
}


def reasons_for(groups: list[str]) -> list[str]:
    """The texts about these groups, each once and with the groups' common name."""
    return [
        f"**{start}.** " + " ".join(text.split())
        for start, text in REASONS.items()
        if any(group.startswith(start) for group in groups)
    ]
