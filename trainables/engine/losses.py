"""Loss terms that several methods share, each a mean over examples (and dimensions)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from trainables.engine.method import Batch, Hyper

ABSENT = -1e9  # finite: a row without any competitor (a class not met yet) must not be NaN


def log_probs(logits: Tensor, classes: Tensor) -> Tensor:
    """Log-probabilities among the classes that compete.

    Args:
        logits: ``(B, C)``.
        classes: ``(C,)`` or ``(B, C)`` bool, the competitors, at least one a row.

    Returns:
        ``(B, C)``; absent classes hold about ``ABSENT``.
    """
    return F.log_softmax(torch.where(classes, logits, ABSENT), dim=-1)


def cross_entropy(
    logits: Tensor, y: Tensor, classes: Tensor, smoothing: Tensor | float = 0.0
) -> Tensor:
    """Mean cross-entropy among competing classes, with smoothed targets.

        −(1−s) log p_y − s/(n−1) Σ_{c≠y} log p_c     over the n classes that compete

    Args:
        logits: ``(B, C)``.
        y: ``(B,)`` int64, each among its competitors.
        classes: ``(C,)`` or ``(B, C)`` bool, the competitors.
        smoothing: s in [0, 1). Without effect where an example has no rival: log p_y is 0.

    Source: smoothing as in the LGM code (specified, never switched on by its authors): the true
    class keeps 1−s. Szegedy et al. 2016 and PyTorch spread s over all n classes instead.
    """
    log_p = log_probs(logits, classes)
    true = log_p.gather(-1, y[:, None])[:, 0]
    others = torch.where(classes, log_p, 0.0).sum(-1) - true
    rivals = (classes.sum(-1) - 1).clamp_min(1)
    return -((1 - smoothing) * true + smoothing * others / rivals).mean()


def rehearsed_cross_entropy(
    logits: Callable[[Tensor], Tensor],
    batch: Batch,
    replayed: Tensor,
    y: Tensor,
    weight: Tensor | float,
    smoothing: Tensor | float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a classifier that rehearses has to minimise.

        CE(c(x), y) + w CE(c(x̃), ỹ)

    Args:
        logits: the classifier, ``(B, D) -> (B, C)``.
        batch: real examples.
        replayed, y: ``(R, D)`` and ``(R,)``, what is rehearsed; of no account in the first task.
        weight: w.
        smoothing: of all targets, as in ``cross_entropy``.

    Returns:
        The loss, and both terms.
    """
    both = logits(torch.cat([batch.x.flatten(1), replayed]))
    on_real, on_replay = both.split((len(batch.y), len(y)))
    real = cross_entropy(on_real, batch.y, batch.rivals[batch.y], smoothing)
    replay = cross_entropy(on_replay, y, batch.rivals[y], smoothing) * batch.learned.any()
    return real + weight * replay, {"classifier": real, "classifier_rehearsal": replay}


def weighted(terms: Mapping[str, Tensor], hyper: Hyper) -> Tensor:
    """Σ w_i · term_i. A term's coefficient bears the term's name."""
    return torch.stack([getattr(hyper, name) * term for name, term in terms.items()]).sum()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor):
    """How far the critic's slope is from 1 between real and generated examples.

        mean_i ( ‖∇ D(x̂_i)‖₂ − 1 )²,   x̂_i = x_i + a_i (x̃_i − x_i)

    Args:
        critic: ``(B, *input) -> (B,)``, no interaction between examples (no batch norm).
        real, fake: ``(B, *input)``.
        mix: ``(B, 1)`` a, uniform in [0, 1], one an example.

    The norm runs over all input dimensions of one example.
    Source: Gulrajani et al., NeurIPS 2017, https://arxiv.org/abs/1704.00028.
    """
    a = mix.reshape(-1, *[1] * (real.dim() - 1))
    between = real + a * (fake - real)
    slope = grad(lambda x: critic(x).sum())(between).flatten(1)
    norm = (slope.square().sum(-1) + 1e-12).sqrt()  # ∂√0 would be infinite
    return (norm - 1).square().mean()


def alignment(now: Tensor, before: Tensor, learned: Tensor) -> Tensor:
    """Mean squared drift of a network's outputs since the snapshot; zero in the first task.

    Args:
        now, before: ``(B, D)``, outputs of the network and of its snapshot for the same inputs.
        learned: ``(C,)`` bool, classes of earlier tasks.

    Source: replay alignment of MeRGAN, Wu et al., NeurIPS 2018, https://arxiv.org/abs/1809.02058,
    which sums over the batch; here a mean over samples and dimensions.
    """
    return (now - before).square().mean() * learned.any()


def distillation(
    student: Tensor, teacher: Tensor, group: Tensor, temperature: Tensor | float
) -> Tensor:
    """How far a student's probabilities are from a teacher's, a softmax for each group of classes.

        T² mean_i Σ_g KL( softmax(t_ig / T) ‖ softmax(s_ig / T) )

    Args:
        student, teacher: ``(B, C)`` s and t, logits.
        group: ``(C,)`` int64, equal for classes that share a softmax. One alone adds nothing, not
            even a rounding error to a gradient.
        temperature: T > 0.

    Source: Hinton et al., 2015, https://arxiv.org/abs/1503.02531. T² keeps the gradient's size.
    """
    before, now = (log_probs_in_groups(z / temperature, group) for z in (teacher, student))
    shared = (group[:, None] == group).sum(-1) > 1
    apart = torch.where(shared, before.exp() * (before - now), 0.0)
    return temperature**2 * apart.sum(-1).mean()


def log_probs_in_groups(logits: Tensor, group: Tensor) -> Tensor:
    """Log-probabilities ``(B, C)`` of every class in its own group.

    Args:
        logits: ``(B, C)``. One that is more than 80 below the best of all groups counts as that.
        group: ``(C,)``, equal for classes of one group.
    """
    together = (group[:, None] == group).to(logits.dtype)
    below = (logits - logits.detach().amax(-1, keepdim=True)).clamp_min(-80.0)  # exp(-80) > 0
    return below - (below.exp() @ together).log()


def similarity_drift(now: Tensor, before: Tensor, learned: Tensor) -> Tensor:
    """How far the similarities of a batch's examples are from those before; zero in the first task.

        mean_i ‖ G_i/‖G_i‖ − Ḡ_i/‖Ḡ_i‖ ‖²,   G = H Hᵀ

    Args:
        now, before: ``(B, D)`` H and H̄.
        learned: ``(C,)`` bool, classes of earlier tasks.

    Source: Tung & Mori, ICCV 2019, https://arxiv.org/abs/1907.09682, who divide by B once more.
    """
    rows, old = (unit_rows(h @ h.T) for h in (now, before))
    return (rows - old).square().sum(-1).mean() * learned.any()


def unit_rows(x: Tensor) -> Tensor:
    """``(B, D)``, rows divided by their lengths; those far below 1e-6 become zero."""
    return x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()  # ∂√0 would be infinite


def prototype_distance(fake: Tensor, y: Tensor, prototypes: Tensor) -> Tensor:
    """How far generated class means are from real ones.

        mean_{k∈y} mean_d ( mean of class k in fake − x̄_k )²

    Args:
        fake: ``(B, D)``.
        y: ``(B,)`` int64.
        prototypes: ``(C, D)`` x̄; rows of classes that are not in ``y`` are not looked at.
    """
    means, counts = class_means(fake, y, len(prototypes))
    present = (counts > 0).to(fake.dtype)
    return ((means - prototypes).square().mean(-1) * present).sum() / present.sum()


def confidence(logits: Tensor, classes: Tensor) -> Tensor:
    """How far predictions are from the uniform distribution over some classes.

        mean_i KL( p_i ‖ U ) = log n + mean_i Σ_k p_ik log p_ik

    Args:
        logits: ``(B, C)``.
        classes: ``(C,)`` bool, n of them.

    Returns:
        A 0-dim tensor in [0, log n]; zero where all predictions are uniform.

    Source: the Kullback-Leibler case of CIZSL, Elhoseiny & Elfeki, ICCV 2019,
    https://arxiv.org/abs/1904.01109. The LGM code mixed up the examples of a batch, and took all
    classes; here each example's own entropy counts, over the classes seen.
    """
    log_p = log_probs(logits, classes)
    entropy = -torch.where(classes, log_p.exp() * log_p, 0.0).sum(-1)
    return (classes.sum().to(logits.dtype).log() - entropy).mean()


def class_means(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean example of every class: ``((C, D) means, (C,) counts)``; zero where a class is empty."""
    member = (y[:, None] == torch.arange(classes, device=y.device)).to(x.dtype)  # (B, C)
    counts = member.sum(0)
    return (member.T @ x.flatten(1)) / counts.clamp_min(1)[:, None], counts


def gaussian_kl(
    mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor
) -> Tensor:
    """KL divergence of diagonal Gaussians, mean over examples and over dimensions.

        ½ [ (σ² + (μ − μ_p)²) / σ_p² − 1 + log σ_p² − log σ² ]

    Args:
        mean, log_variance: ``(B, Z)``, of the posterior.
        prior_mean, prior_log_variance: ``(B, Z)``.

    Source: Kingma & Welling, ICLR 2014, https://arxiv.org/abs/1312.6114, appendix B, which sums
    over the dimensions.
    """
    spread = (log_variance - prior_log_variance).exp()
    apart = (mean - prior_mean).square() * (-prior_log_variance).exp()
    return 0.5 * (spread + apart - 1 + prior_log_variance - log_variance).mean()
