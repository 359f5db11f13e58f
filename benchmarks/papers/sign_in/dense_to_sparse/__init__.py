"""Dense-to-sparse training and its signs: Tables 1, 5 and 10 of "Sign-In to the Lottery".

Claim. AC/DC, RigL and STR learn their signs early. A sparse network with a learned mask, fresh
magnitudes and the signs of epoch 10 or 30 (of 100), or the final ones, trains as well as the method
that found the mask; with learned magnitudes and random signs it does not. AC/DC gains from Sign-In
(Table 5), and so do random initialisations of most masks (Table 10).

Grid. Density 0.1, for AC/DC with and without Sign-In also 0.2 and 0.05. The three methods; six
starts from the mask of each; random starts with Sign-In; masks chosen at initialisation.

Expected. Test accuracy of ResNet-50 on ImageNet (Table 1):

| | AC/DC | RigL | STR |
|---|---|---|---|
| baseline | 74.68 | 73.75 | 73.65 |
| epoch 10 sign | 73.97 | 73.32 | 71.7 |
| epoch 30 sign | 74.89 | 73.7 | 73.91 |
| final sign | 74.88 | 73.74 | 73.77 |
| epoch 10 magnitude | 70.93 | 72.30 | 68.01 |
| final magnitude | 70.94 | 72.40 | 68.35 |
| random | 70.6 | 71.89 | 68.38 |

Where ours differ, and what the paper leaves open. The scale: ResNet-8 on 5,000 images of CIFAR-10,
averaged to 16x16 pixels, 30 epochs; crops are shifted by 2 pixels, 4 at 32x32. Epochs 10 and 30 are
a tenth and three tenths of the epochs. AC/DC follows its ImageNet calendar, scaled. RigL has the
balanced layers that appendix G describes, three runs with those of ERK next to it, at least 60
updates, and an update in place of the gradient step, as in its public code; an entry that its mask
of epoch 10 prunes has no sign then, takes the fresh one's, and is counted. STR starts at s = -8;
its weight decay is searched for on one seed and used for all, so its density is near 0.1 and not
equal to it. A start has a fresh initialisation and an order of images of its own, which all starts
of a seed share. Sign-In is as in the neighbouring experiment: β = 1, p = 1 epoch, T2 half of the
epochs, Frobenius decay. Flips count survivors of the final mask; those that had no sign at a moment
are left out, and their share is recorded.

Seen at this scale. Signs matter as the paper says: the final signs beat random starts, and random
signs with the final magnitudes, for all three masks; and signs are more stable after the warm-up
than in the same mask trained from scratch. Unlike in the paper, a random start of AC/DC's or RigL's
mask is no worse than the method itself: 1,200 steps, most of them with a changing mask, leave the
methods undertrained. RigL tried a third of the pruned entries; ERK's layers give it nothing that
three seeds can detect. What Sign-In adds is smaller than these seeds can detect.
"""
