"""Search space of LGM with an AC-GAN, ``trainables/lgm_acgan.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The adversarial coefficients stay at 1: under Adam only ratios of terms matter, so they
are the unit of the others.
"""

from search_spaces._common import adam, perceptron

# The authors' best run (their version 3: 19.1 % on CUB), with its 300 critic and 300 classifier
# updates a task. Their batch of 256 and widths of 512 to 1024 were for 512-d features of 200
# classes; shapes keep the method's defaults.
DEFAULT = {
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
    "generator_classification": 0.1,
    "critic_classification": 1.0,
    "gradient_penalty": 10.0,
    "use_prototypes": False,
    "generator_rehearsal": 30.0,
    "classifier_rehearsal": 1.0,
    "replay_seen": False,
    "label_smoothing": 0.0,
    "reset_critic": False,
    "reset_classifier": False,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration of LGM-AC-GAN.

    ``replay_seen`` exists only where the generator meets a task before the classifier does;
    ``generator_prototype`` only where prototypes are used.
    """
    config = {
        "order": trial.suggest_categorical(
            "order", ["gan_first", "classifier_first", "interleaved"]
        ),
        # A task's budget, up to 4/3 of the authors' own. More is better up to there and beyond, at
        # a price in trials; their 60 generator updates a task (5 critic's to one) were too few.
        "gan_steps": trial.suggest_int("gan_steps", 100, 400),
        "classifier_steps": trial.suggest_int("classifier_steps", 100, 400),
        "critic_steps": trial.suggest_int("critic_steps", 1, 5),
    }

    for player in ("generator", "critic"):
        config |= adam(trial, player)
        beta2 = f"{player}_beta2"
        config[beta2] = trial.suggest_categorical(beta2, [0.9, 0.999])
    config |= adam(trial, "classifier")

    def coefficient(name, low, high):
        config[name] = trial.suggest_float(name, low, high, log=True)

    coefficient("generator_classification", 0.01, 10.0)
    coefficient("critic_classification", 0.01, 10.0)
    coefficient("gradient_penalty", 0.1, 30.0)
    config["use_prototypes"] = trial.suggest_categorical("use_prototypes", [True, False])
    if config["use_prototypes"]:
        coefficient("generator_prototype", 0.1, 30.0)
    coefficient("generator_rehearsal", 0.1, 100.0)
    coefficient("classifier_rehearsal", 0.1, 10.0)
    if config["order"] != "classifier_first":
        config["replay_seen"] = trial.suggest_categorical("replay_seen", [True, False])

    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config["reset_critic"] = trial.suggest_categorical("reset_critic", [True, False])
    config["reset_classifier"] = trial.suggest_categorical("reset_classifier", [True, False])

    if search_shapes:
        config["latent"] = trial.suggest_categorical("latent", [16, 32, 64, 128])
        for net in ("generator", "critic", "classifier"):
            config |= perceptron(trial, net)
        for size in ("batch_size", "replay_batch_size"):
            config[size] = trial.suggest_categorical(size, [32, 64, 128, 256])
    return config
