"""Search space of LGM on an autoencoder's codes, ``trainables/lgm_ae.py``.

The memory's part is LGM-VAE's. The rehearsal of the autoencoder was never coded by the authors; its
range is that of the other rehearsals.
"""

from search_spaces._common import adam, coefficient, flag, lgm_vae, shapes
from search_spaces.lgm_vae import DEFAULT as LGM_VAE

# The authors' autoencoder was trained by Adam at 1e-3; the rest is their best LGM-VAE run, with the
# memory ahead of the classifier, since a new code is of no use to a memory of the old one.
DEFAULT = {
    "autoencoder_steps": 300,
    "autoencoder_lr": 1e-3,
    "autoencoder_beta1": 0.9,
    "autoencoder_rehearsal": 1.0,
    "code_rehearsal": 1.0,
    "use_code_classification": False,
    **LGM_VAE,
    "order": "vae_first",
    "replay_seen": False,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration of LGM-AE."""
    config = {"autoencoder_steps": trial.suggest_int("autoencoder_steps", 100, 400)}
    config |= adam(trial, "autoencoder")
    config |= coefficient(trial, "autoencoder_rehearsal", 0.01, 100.0)
    config |= coefficient(trial, "code_rehearsal", 0.01, 100.0)
    config |= flag(trial, "use_code_classification")
    if config["use_code_classification"]:
        config |= coefficient(trial, "code_classification", 1e-3, 10.0)
    config |= lgm_vae(trial)
    if search_shapes:
        config["code"] = trial.suggest_categorical("code", [16, 32, 64, 128])
        nets = "autoencoder", "vae", "classifier"
        config |= shapes(trial, nets, ("batch_size", "replay_batch_size"))
    return config
