"""Avalanche's part of tests/reproduce/avalanche.py, run by the Python of another environment.

python -I _avalanche_side.py FOLDER ROW SEED

It reads stream.npz, settings.json and init-SEED.npz in the folder, and writes logits.npy, the
network's answers to all test examples after the last task, and result.json. -I, because the script
beside this file bears the name of the library.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

warnings.filterwarnings("ignore")  # about parts that are not used here

import avalanche as library  # noqa: E402
from avalanche.benchmarks import nc_benchmark  # noqa: E402  # pyright: ignore
from avalanche.training import supervised  # noqa: E402  # pyright: ignore
from avalanche.training.determinism.rng_manager import RNGManager  # noqa: E402  # pyright: ignore
from avalanche.training.plugins import (  # noqa: E402  # pyright: ignore
    EWCPlugin,
    ReplayPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.storage_policy import ClassBalancedBuffer  # noqa: E402  # pyright: ignore

ABSENT = -1e9  # a logit that does not compete
SILENT = -80.0  # one whose sigmoid is 0


class Stop(SupervisedPlugin):
    """Ends an experience after so many updates; Avalanche counts epochs."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations + 1 >= self.steps:  # the clock comes after this
            strategy.stop_training()


class ExampleEWC(EWCPlugin):
    """EWC whose F is that of so many single examples, divided by its mean."""

    def __init__(self, *args, examples: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.examples = examples

    def compute_importances(self, model, criterion, optimizer, dataset, device, *args, **kwargs):
        rows = torch.randperm(len(dataset))[: self.examples].tolist()
        some = dataset.subset(rows)
        found = super().compute_importances(model, criterion, optimizer, some, device, 1)
        mean = torch.cat([one.data.flatten() for one in found.values()]).mean()
        for one in found.values():
            one.data = one.data / mean
        return found


def copy_weights(plugin: Any) -> None:
    """Let SI keep copies of the weights on a CPU too, where what it keeps is the weights."""
    extract = plugin.extract_weights

    def copied(model, target, excluded):
        extract(model, target, excluded)
        for kept in target.values():
            kept.data = kept.data.clone()

    plugin.extract_weights = staticmethod(copied)


def network(weights: dict[str, Tensor]) -> tuple[nn.Sequential, nn.Linear]:
    """Our perceptron and its first weights: up to its last hidden layer, and its head."""
    body: list[nn.Module] = []
    linear = nn.Linear(1, 1)
    for i in range(len(weights) // 2):
        w, b = weights[f"w{i}"], weights[f"b{i}"]
        linear = nn.Linear(len(w), len(b))
        linear.load_state_dict({"weight": w.T, "bias": b})
        body += [linear, nn.ReLU()]
    return nn.Sequential(*body[:-2]), linear


def benchmark(stream: dict[str, Tensor]):
    """Avalanche's stream, from ours."""
    parts = []
    for part in ("train", "test"):
        data: Any = TensorDataset(stream[f"x_{part}"], stream[f"y_{part}"])
        data.targets = stream[f"y_{part}"].tolist()
        parts.append(data)
    tasks = stream["classes"].tolist()
    order = [c for task in tasks for c in task]
    return nc_benchmark(*parts, len(tasks), task_labels=False, fixed_class_order=order)


def plugin_of(method: str, own: dict[str, Any], settings: dict[str, Any]) -> Any:
    """The plugin of a method that is made by one here; None for the others."""
    if method == "ewc":
        return ExampleEWC(0.0, **own) if "examples" in own else EWCPlugin(0.0, **own)
    if method == "si":
        if own.pop("copies"):
            copy_weights(SynapticIntelligencePlugin)
        return SynapticIntelligencePlugin(**own)
    if method == "er":
        store = ClassBalancedBuffer(own["mem_size"])
        return ReplayPlugin(**own, batch_size=settings["batch_size"], storage_policy=store)
    return None


def strategy_of(method: str, own: dict[str, Any], body, head, criterion, plugin, settings) -> Any:
    """A method as Avalanche ships it, for our network."""
    whole = nn.Sequential(*body, head)
    common = {
        "optimizer": torch.optim.Adam(whole.parameters(), lr=settings["lr"]),
        "train_mb_size": settings["batch_size"],
        "train_epochs": settings["steps"] + 1,  # one is not begun: ``Stop``
        "eval_mb_size": 1024,
        "evaluator": None,
        "plugins": [Stop(settings["steps"])],
    }
    if method == "icarl":
        parts = {"feature_extractor": body, "classifier": head, "buffer_transform": None}
        return supervised.ICaRL(**parts, fixed_memory=True, **own, **common)
    common |= {"model": whole, "criterion": criterion}
    if plugin:
        return supervised.Naive(**common | {"plugins": [*common["plugins"], plugin]})
    kinds = {"sequential": "Naive", "lwf": "LwF", "agem": "AGEM"}
    return getattr(supervised, kinds[method])(**own, **common)


def set_strength(plugin: Any, t: int, strength: float) -> dict[str, float]:
    """Before task t, give λ the value with which the penalty is as strong as ours.

    Args:
        strength: mean importance of a weight in the penalty, per task learned.

    Returns:
        λ, and the largest importance.
    """
    is_si = isinstance(plugin, SynapticIntelligencePlugin)
    held = [plugin.ewc_data[1]] if is_si else plugin.importances.values()  # EWC's: one a task
    flat = [torch.cat([one.data.flatten() for one in params.values()]) for params in held]
    found = torch.stack(flat).sum(0)
    lam = strength * t / float(found.clamp_min(0).mean())
    if is_si:
        plugin.si_lambda = [2 * lam]  # theirs is halved
    else:
        plugin.ewc_lambda = lam
    return {"lambda": lam, "largest": float(found.max())}


def main() -> None:
    folder, row, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    stream, weights = (
        {k: torch.from_numpy(v) for k, v in np.load(folder / name).items()}
        for name in ("stream.npz", f"init-{seed}.npz")
    )
    RNGManager.set_random_seeds(seed)
    rivals, seen = stream["rivals"][0], stream["seen"][0]

    def criterion(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.where(rivals[y], logits, ABSENT), y)

    def silenced(module: nn.Module, x: Any, logits: Any) -> Tensor:
        return torch.where(seen, logits, SILENT)

    body, head = network(weights)
    method, own, strength = (settings["rows"][row][k] for k in ("method", "own", "strength"))
    if method == "icarl":  # its loss is fixed, so the outputs of classes to come are made to say no
        head.register_forward_hook(silenced)
    plugin = plugin_of(method, own, settings)
    strategy = strategy_of(method, own, body, head, criterion, plugin, settings)
    experiences, penalty, updates = benchmark(stream).train_stream, [], []
    started = time.process_time()
    for t, experience in enumerate(experiences):
        rivals, seen = stream["rivals"][t], stream["seen"][t]
        if t and strength:
            penalty.append(set_strength(plugin, t, strength))
        strategy.train(experience, eval_streams=[], drop_last=True, reset_optimizer_state=True)
        updates.append(strategy.clock.train_exp_iterations)
    seconds = time.process_time() - started
    strategy.model.eval()
    with torch.no_grad():
        np.save(folder / "logits.npy", strategy.model(stream["x_test"]).numpy())
    version = library.__version__  # pyright: ignore
    result = {"seconds": seconds, "updates": updates, "penalty": penalty, "version": version}
    (folder / "result.json").write_text(json.dumps(result | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
