"""What a define-by-run space holds, found by running it, and whether a point lies in it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from rich.markup import escape
from rich.tree import Tree

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
Space = Callable[[Any], dict[str, Any]]

# A condition on k binary choices holds in one of 2^k random runs: five of them, in about thirty.
RUNS = 1000
# An integer of at most that many values may be what a condition asks for, like a choice.
FEW = 8


class Parameter(NamedTuple):
    name: str
    distribution: Distribution
    # It exists where each of these parameters has one of these values; always, if there are none.
    conditions: dict[str, tuple]
    explained: bool  # whether the conditions say exactly when it exists


class Answers:
    """The part of an Optuna trial that a space may use, answered by a function of ours."""

    def __init__(self, answer: Callable[[str, Distribution], Any]):
        self.answer = answer
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, Distribution] = {}

    def suggest_float(self, name, low, high, *, step=None, log=False) -> float:
        return self._suggest(name, FloatDistribution(low, high, log=log, step=step))

    def suggest_int(self, name, low, high, *, step=1, log=False) -> int:
        return self._suggest(name, IntDistribution(low, high, log=log, step=step))

    def suggest_categorical(self, name, choices) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: Distribution) -> Any:
        _same(name, self.distributions.setdefault(name, distribution), distribution)
        if name not in self.params:
            self.params[name] = self.answer(name, distribution)
        return self.params[name]


class Held:
    """An Optuna trial in which some parameters are fixed: they are not asked for."""

    def __init__(self, trial, fixed: Mapping[str, Any]):
        self.trial, self.fixed = trial, fixed

    def suggest_float(self, name, low, high, **options) -> float:
        return self._unless(name, self.trial.suggest_float, low, high, **options)

    def suggest_int(self, name, low, high, **options) -> int:
        return self._unless(name, self.trial.suggest_int, low, high, **options)

    def suggest_categorical(self, name, choices) -> Any:
        return self._unless(name, self.trial.suggest_categorical, choices)

    def _unless(self, name: str, suggest: Callable, *range_, **options) -> Any:
        return self.fixed[name] if name in self.fixed else suggest(name, *range_, **options)


def explore(space: Space) -> list[Parameter]:
    """Every parameter that a space can suggest, in the order in which it does.

    The space is run ``RUNS`` times: over all combinations of its choices, or over random ones where
    there are more, with random numbers for everything else.

    Raises:
        ValueError: if a name is suggested with two ranges, which no sampler could learn from.
    """
    runs = _runs(space)
    distributions: dict[str, Distribution] = {}
    for run in runs:
        for name, distribution in run.distributions.items():
            _same(name, distributions.setdefault(name, distribution), distribution)
    first = max(runs, key=lambda run: len(run.params))
    order = list(dict.fromkeys([*first.params, *distributions]))
    return [_parameter(name, order, distributions, runs) for name in order]


def show(space: Space, default: Mapping[str, Any]) -> Tree:
    """The tree of a space, to be printed by rich: ranges, scale, conditions and defaults."""
    tree = Tree("space", hide_root=True)
    nodes: dict[str, Tree] = {}
    branches: dict[tuple, Tree] = {}
    for parameter in explore(space):
        node, above = tree, {}
        if parameter.conditions:
            *others, parent = parameter.conditions  # under the parent that is suggested last
            above = {name: parameter.conditions[name] for name in others}
            branch = parent, parameter.conditions[parent]
            if branch not in branches:
                branches[branch] = nodes[parent].add(f"[dim]{escape(_condition(*branch))}[/]")
            node = branches[branch]
        nodes[parameter.name] = node.add(_label(parameter, above, default))
    return tree


def check_configuration(space: Space, config: Mapping[str, Any]) -> None:
    """Raise unless a configuration is a point of a space.

    Optuna drops unknown names without a word and uses values out of range with a warning; a
    published default that is not tried as published would be worse than an error.

    Args:
        space: the space.
        config: a value for every parameter that is active with these values; constants of the
            space may be repeated.

    Raises:
        ValueError: naming the parameter, its value and its range, if a value is missing or out of
            range, or if a name is unknown or inactive.
    """

    def answer(name, distribution):
        if name not in config:
            raise ValueError(f"{name} has no value; expected {describe(distribution)}")
        if not _contains(distribution, config[name]):
            raise ValueError(
                f"{name} = {config[name]!r} is out of range; expected {describe(distribution)}"
            )
        return config[name]

    trial = Answers(answer)
    constants = space(trial)
    for name in config.keys() - trial.params.keys():
        if name in constants and constants[name] == config[name]:
            continue
        value = f"{name} = {config[name]!r}"
        if name in constants:
            raise ValueError(f"{value} contradicts the constant {constants[name]!r} of the space")
        for parameter in explore(space):
            if parameter.name == name:
                where = _where(parameter.conditions)
                range_ = describe(parameter.distribution)
                raise ValueError(f"{value} is inactive; expected {range_} {where} only")
        known = ", ".join(sorted(trial.params))
        raise ValueError(f"{value} is unknown to the space; expected some of: {known}")


def describe(distribution: Distribution) -> str:
    """A range in words: ``1e-04 .. 0.01, log`` or ``gan_first | interleaved``."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(str, distribution.choices))
    low, high, step = distribution.low, distribution.high, distribution.step
    words = [f"{low:g} .. {high:g}"]
    if isinstance(distribution, IntDistribution):
        words.append("integer")
    if step not in (None, 1):
        words.append(f"step {step:g}")
    if distribution.log:
        words.append("log")
    return ", ".join(words)


def _same(name: str, known: Distribution, distribution: Distribution) -> None:
    if known is not distribution and known != distribution:
        raise ValueError(
            f"{name} is suggested with two ranges, {describe(known)} and "
            f"{describe(distribution)}; a name has one range everywhere"
        )


def _choices(distribution: Distribution) -> tuple:
    """The values that a condition may ask for; none of a number with many."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        return tuple(values) if len(values) <= FEW else ()
    return ()


def _runs(space: Space) -> list[Answers]:
    """Run a space ``RUNS`` times, along every path of choices where there are not more of them."""
    rng = np.random.default_rng(0)
    untaken: list[tuple] = []  # the first choices of paths
    runs = []
    for _ in range(RUNS):
        prefix = untaken.pop(rng.integers(len(untaken))) if untaken else ()
        run, path, options = _walk(space, prefix, rng)
        runs.append(run)
        if len(runs) == 1 or prefix:
            for place in range(len(prefix), len(path)):
                others = [o for o in range(options[place]) if o != path[place]]
                untaken += [(*path[:place], other) for other in others]
    return runs


def _walk(space: Space, prefix: tuple, rng: np.random.Generator):
    """One run with these first choices and the rest at random; its choices, and out of how many."""
    path, options = [], []

    def answer(name, distribution):
        choices = _choices(distribution)
        if choices:
            drawn = int(rng.integers(len(choices)))
            path.append(prefix[len(path)] if len(path) < len(prefix) else drawn)
            options.append(len(choices))
            return choices[path[-1]]
        if isinstance(distribution, IntDistribution):
            steps = (distribution.high - distribution.low) // distribution.step
            return distribution.low + distribution.step * int(rng.integers(steps + 1))
        return rng.uniform(distribution.low, distribution.high)

    run = Answers(answer)
    space(run)
    return run, path, options


def _parameter(name, order, distributions, runs) -> Parameter:
    """When does a parameter exist? Where its runs, and only its runs, have these choices."""
    active = [run for run in runs if name in run.params]
    conditions = {}
    for parent in order:
        choices = _choices(distributions[parent])
        if parent == name or not choices or any(parent not in run.params for run in active):
            continue
        seen = tuple(c for c in choices if any(run.params[parent] == c for run in active))
        if len(seen) < len(choices):
            conditions[parent] = seen

    def explains(conditions):
        return len(active) == sum(
            all(run.params.get(p, _NOTHING) in values for p, values in conditions.items())
            for run in runs
        )

    explained = explains(conditions)
    for parent in list(conditions) if explained else ():
        fewer = {p: values for p, values in conditions.items() if p != parent}
        if explains(fewer):
            conditions = fewer
    return Parameter(name, distributions[name], conditions, explained)


_NOTHING = object()


def _contains(distribution: Distribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(
            value == c and isinstance(value, bool) == isinstance(c, bool)
            for c in distribution.choices
        )
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    if not distribution.low <= value <= distribution.high:
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    steps = (value - distribution.low) / (distribution.step or 1)
    return distribution.step is None or bool(np.isclose(steps, round(steps)))


def _condition(name: str, values: tuple) -> str:
    return f"{name} = {' | '.join(map(str, values))}"


def _where(conditions: dict[str, tuple]) -> str:
    words = " and ".join(_condition(name, values) for name, values in conditions.items())
    return f"where {words}" if words else "in some configurations"


def _label(parameter: Parameter, above: dict[str, tuple], default: Mapping[str, Any]) -> str:
    words = f"[bold]{escape(parameter.name)}[/]  {escape(describe(parameter.distribution))}"
    if parameter.name in default:
        words += f"  [green]default {escape(str(default[parameter.name]))}[/]"
    if above:
        words += f"  [dim]{escape(_where(above))}[/]"
    if not parameter.explained:
        words += "  [dim]in some configurations[/]"
    return words
