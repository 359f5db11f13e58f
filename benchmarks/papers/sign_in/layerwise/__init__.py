"""The layerwise densities of masks that need no training (Figure 9 of Sign-In).

Claim. At 90 % sparsity of a ResNet-50, the mask of RigL, which is a random mask with balanced
layers, has dense initial layers, and later layers that are never sparser than 99 %. Masks that
train badly, among them SNIP's and SynFlow's, have initial layers sparser than 90 %, or later layers
sparser than 99 %.

Grid. torchvision's ResNet-50 at its own random initialisation, every convolution and linear weight,
density 0.1. Random masks with balanced, ERK and uniform layers; SynFlow in a hundred steps and in
one; SNIP; magnitude. Nothing is trained.

Where ours differ. RigL moves survivors within their layers alone, so that its curve is that of the
balanced mask from the first step to the last. AC/DC and STR need their trainings: the page on
dense-to-sparse training has their layers, for a smaller network. SNIP needs images. Those of
ImageNet are not here, and Gaussian noise with random labels takes their place. The paper says
neither which layers are the initial ones nor how SynFlow was computed. Ours are the stem and the
first stage, and all others are later ones.

Seen. SynFlow in a hundred steps has what the paper says of it in one place: the projections of the
shortcuts, which it empties. Next to them a signal has another way, so that SynFlow may take them
without closing the network; all other layers are denser than the paper's borders. One step, as in
the public code that the paper's resembles, empties the classifier, and so does magnitude across the
network. No such network can learn anything, and the paper's SynFlow network did: it must have come
from more steps, or from another mode of batch normalisation.
"""
