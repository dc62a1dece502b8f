"""Fragments that several search spaces share."""


def adam(trial, component: str = "") -> dict:
    """Learning rate and first moment of Adam for one component, or for the whole model.

    Rates below 1e-4 do not arrive in the few hundred steps of a task; above 1e-2 small nets
    diverge. β1 = 0 is what GANs use, 0.9 what everything else does.
    """
    name = f"{component}_" if component else ""
    return {
        f"{name}lr": trial.suggest_float(f"{name}lr", 1e-4, 1e-2, log=True),
        f"{name}beta1": trial.suggest_categorical(f"{name}beta1", [0.0, 0.5, 0.9]),
    }


def perceptron(trial, prefix: str = "") -> dict:
    """Width and depth of a perceptron, opened by ``--search-shapes``."""
    name = f"{prefix}_" if prefix else ""
    return {
        f"{name}hidden": trial.suggest_categorical(f"{name}hidden", [64, 128, 256, 512]),
        f"{name}layers": trial.suggest_int(f"{name}layers", 1, 3),
    }


# Adam at its usual rate, and as many steps a task as the classifiers of LGM get.
CLASSIFIER_DEFAULT = {"steps": 300, "lr": 1e-3, "beta1": 0.9, "label_smoothing": 0.0}


def classifier(trial) -> dict:
    """A classifier's updates and targets."""
    config = {"steps": trial.suggest_int("steps", 100, 400)} | adam(trial)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    return config


def coefficient(trial, name: str, low: float, high: float) -> dict:
    """The weight of a loss term, on a logarithmic scale."""
    return {name: trial.suggest_float(name, low, high, log=True)}


def flag(trial, name: str) -> dict:
    """Something that is done or not."""
    return {name: trial.suggest_categorical(name, [True, False])}


# What LGM's authors ran their best GAN with: 300 critic and 300 classifier updates a task.
GAN_DEFAULT = {
    "order": "gan_first",
    "gan_steps": 300,
    "classifier_steps": 300,
    "critic_steps": 5,
    "generator_lr": 1e-3,
    "generator_beta1": 0.0,
    "generator_beta2": 0.9,
    "critic_lr": 1e-3,
    "critic_beta1": 0.0,
    "critic_beta2": 0.9,
    "classifier_lr": 1e-3,
    "classifier_beta1": 0.0,
    "gradient_penalty": 10.0,
    "generator_rehearsal": 30.0,
    "classifier_rehearsal": 1.0,
    "replay_seen": False,
    "label_smoothing": 0.0,
    "reset_critic": False,
    "reset_classifier": False,
}


def gan_loop(trial) -> dict:
    """Turns and optimisers of LGM with a GAN.

    A task's budget goes up to 4/3 of the authors' own. More is better up to there and beyond, at a
    price in trials; their 60 generator updates a task (5 critic's to one) were too few.
    """
    config = {
        "order": trial.suggest_categorical(
            "order", ["gan_first", "classifier_first", "interleaved"]
        ),
        "gan_steps": trial.suggest_int("gan_steps", 100, 400),
        "classifier_steps": trial.suggest_int("classifier_steps", 100, 400),
        "critic_steps": trial.suggest_int("critic_steps", 1, 5),
    }
    for player in ("generator", "critic"):
        config |= adam(trial, player)
        beta2 = f"{player}_beta2"
        config[beta2] = trial.suggest_categorical(beta2, [0.9, 0.999])
    return config | adam(trial, "classifier")


def gan_rehearsal(trial, order: str, attributes: bool) -> dict:
    """Prototypes, rehearsal, creativity and resets of LGM with a GAN.

    ``replay_seen`` exists only where the generator meets a task before the classifier does; a
    coefficient only where its term is used; creativity only where the generator is told the
    classes' attributes.
    """
    config = flag(trial, "use_prototypes")
    if config["use_prototypes"]:
        config |= coefficient(trial, "generator_prototype", 0.1, 30.0)
    config |= coefficient(trial, "generator_rehearsal", 0.1, 100.0)
    config |= coefficient(trial, "classifier_rehearsal", 0.1, 10.0)
    if order != "classifier_first":
        config |= flag(trial, "replay_seen")
    if attributes:
        config |= flag(trial, "use_creativity")
        if config["use_creativity"]:
            config |= coefficient(trial, "creativity_adversarial", 1e-3, 1.0)
            config |= coefficient(trial, "creativity_entropy", 1e-3, 1.0)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    return config | flag(trial, "reset_critic") | flag(trial, "reset_classifier")


def vae_terms(trial) -> dict:
    """Coefficients of a rehearsing VAE; the reconstruction's weight stays at 1, their unit."""
    config = coefficient(trial, "divergence", 1e-4, 1.0)
    config |= coefficient(trial, "encoder_rehearsal", 0.01, 100.0)
    config |= coefficient(trial, "decoder_rehearsal", 0.01, 100.0)
    return config | flag(trial, "learn_prior")


def lgm_vae(trial) -> dict:
    """Turns, optimisers and terms of LGM-VAE.

    ``replay_seen`` exists only where the autoencoder meets a task before the classifier does.
    """
    config = {
        "order": trial.suggest_categorical(
            "order", ["vae_first", "classifier_first", "interleaved"]
        ),
        # A task's budget, up to 8/5 of the authors' own.
        "vae_steps": trial.suggest_int("vae_steps", 100, 400),
        "classifier_steps": trial.suggest_int("classifier_steps", 100, 400),
    }
    config |= adam(trial, "vae") | adam(trial, "classifier")
    config["vae_beta2"] = trial.suggest_categorical("vae_beta2", [0.9, 0.999])
    config |= vae_terms(trial)
    config |= coefficient(trial, "classifier_rehearsal", 0.1, 10.0)
    if config["order"] != "classifier_first":
        config |= flag(trial, "replay_seen")
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    return config | flag(trial, "reset_classifier")


def trainable_embedder(trial) -> dict:
    """A trunk in front of the method (``--embedder trainable``), and what holds it."""
    config = {"embedder_lr": trial.suggest_float("embedder_lr", 1e-5, 1e-2, log=True)}
    for term in ("embedder_ewc", "embedder_mas"):
        config |= flag(trial, f"use_{term}")
        if config[f"use_{term}"]:
            config |= coefficient(trial, term, 1e-3, 100.0)
    return config


def shapes(trial, nets: tuple[str, ...], batches: tuple[str, ...], latent: bool = True) -> dict:
    """Widths, depths and batch sizes, opened by ``--search-shapes``.

    Args:
        nets, batches: prefixes of ``_hidden`` and ``_layers``, and names of batch sizes.
        latent: whether there is a z to size.
    """
    config = {"latent": trial.suggest_categorical("latent", [16, 32, 64, 128])} if latent else {}
    for net in nets:
        config |= perceptron(trial, net)
    for size in batches:
        config[size] = trial.suggest_categorical(size, [32, 64, 128, 256])
    return config
