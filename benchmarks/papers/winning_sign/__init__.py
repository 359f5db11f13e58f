"""Find a Winning Sign: may any initialisation win with the right mask and the right signs?

Claim. The signed mask of a sparse network that learning-rate rewinding (LRR) found does not help a
fresh random network, unless the trained normalisation parameters come along. AWS is LRR with the
normalisation parameters drawn, at every training forward, between their trained and their initial
values. Its signed mask makes any random network train to about the accuracy of the AWS solution,
in the same basin: error barriers are low between two trainings of it, and to the AWS solution.

Grid. Warm-up, then rounds that prune 20 % of the survivors by global magnitude, at a constant
learning rate with a new optimizer each; then a final training with the full schedule. Six networks
are trained at each density (Figure 3): dense, the LRR and AWS networks from where they are, and a
fresh initialisation with LRR's signs, with AWS's signs, with LRR's mask alone. Barriers belong to
round 11, density 0.8^11 = 0.086, the paper's "approximately 0.09". Further: trained norms kept
(Figure 2), signs of norms (appendix A), VGG (appendix B), Gem-Miner (Figure 4).

Expected. Test accuracy on ImageNet (Table 2), of the papers' networks nearest to ours:

| | remaining | dense | LRR | AWS | init + LRR sign | init + AWS sign |
|---|---|---|---|---|---|---|
| ResNet-50 | 0.27 | 75.26 | 75.11 | 74.48 | 73.20 | 74.65 |
| ResNet-50 | 0.14 | 75.26 | 74.58 | 73.63 | 71.94 | 73.65 |
| MLP-Mixer | 0.21 | 59.57 | 59.18 | 59.23 | 57.54 | 59.17 |
| MLP-Mixer | 0.11 | 59.57 | 58.61 | 58.77 | 56.91 | 58.62 |

For CIFAR-100 and Tiny-ImageNet the paper prints curves and no numbers.

Where ours differ. Each section says where its data, networks and epochs are smaller: it shows how
the experiment runs and what it gives at this size, not the paper's numbers. Where a final training
does not converge, networks that were found over many epochs have an advantage over those that begin
at an initialisation; the dense network that was trained as long says how large it is. The small
recipes end in a cosine, the paper's divides the learning rate by 10
twice. The classifier is neither pruned nor counted nor given signs (the official code leaves it
unpruned but does transfer its signs and those of biases: `--official-signs`). A ticket is taken
after the training that follows its last pruning, as in the official code; Algorithm 1 takes it just
before. Barriers interpolate every parameter and compute batch-norm statistics anew at each point
from un-augmented training images. SGD-noise stability is measured as the paper defines it (one
start, two orders of the data) and as the official script does (two initialisations as well).
Gem-Miner spends the epochs that LRR spends; the learning rate of its scores is the best of 0.1, 1
and 10 in a trial with seed 0; see `benchmarks/papers/winning_sign/gem_miner.py` for what else had
to be decided.
"""
