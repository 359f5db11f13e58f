"""Why a target is missed where it is: what the time goes to, and what was tried.

Numbers stay out of these texts: they are in the rows that a text names.
"""

from __future__ import annotations

REASONS = {
    "imp_prune": """
The targets are times of `torch.nn.utils.prune` on a processor, and with an allocator, that made it
more than twice as slow as here: this command keeps freed memory for both, which spares the peer
most of its page faults and ours nothing. Of our time a good third is the mask, which has the
weight's dtype and so four times the bytes of bools: it is read once to check and count it, once to
count each chunk, once in the scan and once for the zeros, and written once. The scan and the search
for the threshold are another third, writing the zeros the rest. Small models pay for Python: each
layer costs as much as tens of thousands of weights. Tried: comparing, counting and copying masks by
torch (up to six times slower than numpy), a masked fill for the zeros (fifteen times slower than
multiplying bits), 16-bit keys, selection by hardshrink, putmask or tables of places, smaller chunks
for threads, and pruning in place in one pass, which saved a tenth and was deleted.
""",
    "training step with masks": """
By default a mask is one product in forward and one in backward for each weight, as with any factor;
the light property saves the Python of two modules (row *limit: an identity by parametrize* shows
what torch's own property costs). Enforced in the step, forward has no product, but the gradient is
multiplied as it arrives and the weight after the step: on this processor these two passes move
about as much memory as the two products of the default. The target comes from a trial on another
one. *Float mask on gradients, unchecked* is cheaper because it writes into the accumulated
gradient, which DDP, clipping of other hooks and `torch.autograd.grad` do not see.
MultiheadAttention reads its packed projection three times in a training forward, and a parametrized
weight is computed each time; `parametrize.cached()` around the forward pass spares that. Tried: one
integer mask for gradient and weight (a hundredth or two less, but another answer for an infinite
gradient), gradients masked in place (wrong where two weights share one), and a float product after
the step (a NaN stays).
""",
    "training step with Sign-In": """
*m * v without a mask* is the least that two factors can cost as a parametrization. Enforced in the
step there is no product with the mask, but both factors are multiplied after the step. The rest is
one product in forward, two in backward, and an optimizer that has twice the parameters, which with
SGD as it comes is about half: the rows with fused SGD have less of it.
""",
    "training step, ours and the peer in turns": """
The rows are steps of the two in turns, so that the machine's drift cancels; what is left of it is
seen in the rows *dense step once more*. torch.nn.utils.prune leaves the output projections of
attention dense (its hook never runs there), a twelfth of a ViT's weights.
""",
    "training step, compiled": """
Inductor fuses the product with the mask, but the matrix multiply needs the masked weight in memory,
so a pass over it stays. Enforced in the step the mask is in the compiled forward all the same, and
the passes after the step come on top: compiled models gain nothing by it.
""",
    "training step with masks, fused AdamW": """
Fused AdamW makes the dense step cheaper, so that the same passes for the mask weigh more.
""",
    "a mask update amortised": """
SET and RigL rank the entries of every weight twice, the survivors to drop and the others to grow.
SET also draws a random word for every entry and ranks in float64, in which all words differ, where
RigL ranks float32 gradients. The MLP's step is short for its number of weights, because each weight
is used once for each image: a pass over all of them is a notable part of it. In a convolutional
network the same update is a fraction of a step (rows of ResNet-8).
""",
    "training step with interpolated norms": """
A parametrized norm weight costs Python and two kernels on a few numbers.
""",
    "reinit_signs": """
The naive version neither checks nor counts nor reports. Ours checks the mask and makes bools of it,
finds the survivors of each mask twice, to read them and to write them, and takes sigma in float64:
in float32 it would be off in the seventh digit where all magnitudes are equal, as they are after a
reinitialisation. Epsilon and delta draw a 32-bit word for every entry, pruned ones included, so
that a draw depends on the position alone; then epsilon selects by these words and delta by
magnitude. The version that read and wrote signs chunk by chunk as packed bits was up to twice as
fast and four times as long.
""",
    "deploy": """
A sparse product pays where the dense one is large: with few inputs, reading the indices and filling
the output take what skipping the zeros saves. `compress` measures each layer with the rows it
really gets, as a whole, and leaves those dense that would not gain by a tenth, so that a model is
not slower than before: at 80 % nothing is swapped, and that row is the noise of two equal models.
Tried: filling and adding in two steps, writing into a buffer, other numbers of rows at a time, and
handing outputs on feature by feature from layer to layer, which gained 2 to 8 % of a ViT-S.
""",
    "survivors": """
What is left of a step on a small network is what does not shrink with the survivors: activations
are transposed for the sparse products and back, each product has its own setup in Python and MKL,
and the loss, biases and small layers, which stay dense, cost what they did. On a wide network the
products are all of it: at about a tenth the gradient of the survivors, a scalar product for each,
takes as long as forward. Small batches are transposed once for both uses; larger ones are taken in
blocks. Tried: activations handed on feature by feature (what comes between, such as a ReLU, is
slower on two orders of memory, and a step loses up to a fifth), column-major products without a
transposition (four to six times slower), indices of 64 bits (copied in every product), and blocks
of 64 and 128 rows. In the rows *compact and masked in turns* nothing may be compact at all: then
two equal steps are compared. sparselab computes each product in one call of a C++ kernel of its
own, ours takes torch's sparse products with transpositions between them: its kernels win where
little is left to compute and on large batches, torch's where a tenth is left and batches are small.
With two threads the dense products gain more than the sparse ones, those of few entries nothing at
all.
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
