"""How soon a sampler finds good configurations, on made-up objectives over a method's own space.

    python -m tests.speed.bench_samplers --seeds 10 --concurrency 1 2
    python -m tests.speed.bench_samplers --concurrency 1 8 16 64 --variants group

Objectives are drawn, one a seed, in the shape that continual learners show: a few parameters
matter a lot and most hardly at all, neighbours interact, a choice shifts the score, and the score
is noisy. Printed is the noise-free score of the best trial so far, mean ± standard error over the
seeds. Trials side by side are imitated: each takes a random time and is told when that is over.
"""

import argparse
import heapq
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler, TPESampler

import search_spaces
from search_spaces._tree import explore
from trainables.ray import searcher

MARKS = (50, 100, 200)
NOISE = 0.01


def tpe(**flags):
    flags = {"constant_liar": False} | flags
    return lambda seed: TPESampler(seed=seed, n_startup_trials=0, **flags)


# Model, and how many start-up configurations of which kind come before it.
VARIANTS = {
    "random": (None, 10**6, "random"),
    "qmc": (None, 10**6, "qmc"),
    "tpe independent, 10 random": (tpe(multivariate=False), 10, "random"),
    "tpe multivariate, 10 random": (tpe(multivariate=True), 10, "random"),
    "tpe multivariate + group, liar": (
        tpe(multivariate=True, group=True, constant_liar=True),
        10,
        "random",
    ),
    **{
        f"tpe multivariate + group, {n} {kind}": (tpe(multivariate=True, group=True), n, kind)
        for kind in ("random", "qmc")
        for n in (10, 20, 40)
    },
}


class Objective:
    """1 at the best configuration, 1/e at the median; only a handful of parameters matter."""

    def __init__(self, space, seed: int):
        rng = np.random.default_rng([seed, 1])
        self.parameters = explore(space)
        count = len(self.parameters)
        self.best = rng.uniform(0.1, 0.9, count)
        self.weight = rng.pareto(0.8, count).clip(0.02, 8.0)
        self.coupling = rng.normal(0, 0.5, count)
        self.choice = rng.exponential(0.3, (count, 8))
        for row, (_, distribution, *_) in zip(self.choice, self.parameters, strict=True):
            if isinstance(distribution, CategoricalDistribution):
                row -= row[: len(distribution.choices)].min()
        study = optuna.create_study(sampler=RandomSampler(seed))
        trials = [study.ask() for _ in range(100)]
        self.scale = 1.0
        self.scale = np.median([self.loss(space(trial)) for trial in trials])

    def __call__(self, params) -> float:
        return float(np.exp(-self.loss(params)))

    def loss(self, params) -> float:
        """0 at the best configuration, 1 at the median one."""
        loss, before = 0.0, 0.0
        for i, (name, distribution, *_) in enumerate(self.parameters):
            if name not in params:
                continue
            if isinstance(distribution, CategoricalDistribution):
                shift = self.choice[i, distribution.choices.index(params[name])]
                loss += min(self.weight[i], 1.0) * shift
                continue
            low, high, value = distribution.low, distribution.high, params[name]
            if distribution.log:
                low, high, value = np.log([low, high, value])
            off = (value - low) / (high - low) - self.best[i]
            loss += self.weight[i] * (off + self.coupling[i] * before) ** 2
            before = off
        return loss / self.scale


def walk(variant: str, space, seed: int, trials: int, concurrency: int) -> list[float]:
    """The noise-free score of the best trial so far, after each trial."""
    model, startups, startup = VARIANTS[variant]
    objective, rng = Objective(space, seed), np.random.default_rng([seed, 2])
    names = [parameter.name for parameter in objective.parameters]
    study = optuna.create_study(direction="maximize")
    running, clock, curve, best = [], 0.0, [], (-1.0, 0.0)
    for number in range(trials + concurrency):
        if len(running) == concurrency or number >= trials:
            clock, _, trial, score = heapq.heappop(running)
            seen = score + rng.normal(0, NOISE)
            study.tell(trial, seen)
            best = max(best, (seen, score))
            curve.append(best[1])
        if number < trials:
            if number < startups:
                study.sampler = searcher.make_sampler(startup, seed, number, names)
            else:
                study.sampler = model(1000 * seed + number)
            trial = study.ask()
            space(trial)
            finish = clock + rng.uniform(0.5, 1.5)
            heapq.heappush(running, (finish, number, trial, objective(trial.params)))
    return curve


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="lgm_acgan")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", default="", help="only those whose name holds this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = search_spaces.load(arguments.method).space
    print(f"{'best score after':44}", *(f"{mark:>16}" for mark in MARKS))
    for variant in (name for name in VARIANTS if arguments.variants in name):
        for concurrency in arguments.concurrency:
            curves = np.array(
                [
                    walk(variant, space, seed, max(MARKS), concurrency)
                    for seed in range(arguments.seeds)
                ]
            )
            mean, error = curves.mean(0), curves.std(0, ddof=1) / np.sqrt(arguments.seeds)
            cells = (f"{mean[m - 1]:.3f} ± {error[m - 1]:.3f}" for m in MARKS)
            name = f"{variant}, {concurrency} at once"
            print(f"{name:44}", *(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
