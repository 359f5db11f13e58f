"""Sign-In to the Lottery: does training θ as m⊙v help a network that is sparse from the start?

Claim. A random (or SNIP, SynFlow) mask of a fresh network trains better when every weight is the
product of two parameters with m² − v² = β, reset to β every p epochs until epoch T2: more signs
flip, and the minimum is flatter. Without the reset the gain is smaller.

Grid. Densities 0.2, 0.1 and 0.05; random masks with balanced layers; plain training, Sign-In, and
m⊙v without rescaling; the recipes of Tables 6 and 7. p is given nowhere and is swept here. A
control that the paper omits trains plain weights at the rates with which m⊙v starts, η(m² + v²) in
the mean over the survivors of each layer, and with the decay of m⊙v.

Expected. Test accuracy with a random mask (Tables 3 and 11; Tables 9 and 11 print baselines that
are 0.05 to 0.16 above those of Table 3):

| | density 0.2 | 0.1 | 0.05 |
|---|---|---|---|
| CIFAR-10 ResNet-20, random | 88.25 | 86.25 | 83.56 |
| + m⊙v | 89.11 | 87.13 | 83.88 |
| + Sign-In | 89.37 | 87.83 | 84.74 |
| CIFAR-100 ResNet-18, random | 73.95 | 72.96 | 71.36 |
| + m⊙v | 74.62 | 73.18 | 72.08 |
| + Sign-In | 75.32 | 73.94 | 72.51 |
| ImageNet ResNet-50, random | 73.87 | 71.56 | 68.72 |
| + m⊙v | 73.96 | 71.83 | 69.15 |
| + Sign-In | 74.12 | 72.19 | 69.38 |

Where ours differ, and what the paper leaves open. The rescale period p; what happens to momentum
at a rescale (kept here, `--rescale-momentum`); which layers are pruned and converted (every
convolution and linear layer, the first and the last among them, as in the public code that the
paper's harness resembles, TurboPrune); the corners of the triangular schedule (that code's);
augmentation (crop and flip). The Frobenius penalty is λ/2·Σ(m⊙v)², so that its gradient in θ is
that of a weight decay λ. Table 7's weight decay of 0 is taken literally for CIFAR: biases and norms
do not decay either, in Sign-In and in m⊙v. "Balanced" is exact: every layer keeps the same number
of weights, small layers stay dense and the others share what those cannot use. SynFlow takes
its hundred steps in evaluation mode; TurboPrune's takes one, in training mode, which may be why the
paper's SynFlow numbers are low. Sharpness is the largest Hessian eigenvalue of the training loss in
θ = m⊙v for every method, so that a change of coordinates is not taken for a flatter minimum.
"""
