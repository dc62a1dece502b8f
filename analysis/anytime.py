"""How far a search had come after so many trials, tasks and seconds, and whether it beat chance."""

import numpy as np
import pandas as pd

from analysis.parameters import of_search
from analysis.reading import Study
from analysis.tunability import expected_best

# The first trial of a search is the default, not drawn. After it a sampler that learns draws at
# random up to this number (trainables/ray/searcher.py, which may not be imported from here).
STARTUP = 10
GENERATION = 50  # of NSGA-II: its first one is random
FEWEST = 5  # completed trials, for a statement about random search


def best_so_far(study: Study) -> pd.DataFrame:
    """The best score after each trial of the search, in the order in which trials ended.

    Returns:
        One row a trial: ``trial_id``; ``trials`` and ``tasks_trained`` so far (whatever became of
        them); ``seconds`` of training so far, summed over trials, also those side by side;
        ``hours`` on the clock since the first trial began, NaN where the record has no times;
        ``score``, the best of the trials completed so far, NaN while there is none.

    Example:
        >>> best_so_far(study)[["trials", "tasks_trained"]].tail(1)
            trials  tasks_trained
        39      40             98
    """
    search = of_search(study.trials).sort_values(["finished", "trial_id"], ignore_index=True)
    completed = search.score.astype(float).where(search.status == "completed")
    completed = completed.where(np.isfinite(completed))
    clock = pd.to_datetime(search.finished) - pd.to_datetime(search.started).min()
    return pd.DataFrame(
        {
            "trial_id": search.trial_id,
            "trials": np.arange(1, len(search) + 1),
            "tasks_trained": search.tasks_learned.cumsum(),
            "seconds": search.seconds.astype(float).fillna(0.0).cumsum(),
            "hours": clock.dt.total_seconds() / 3600,
            "score": completed.cummax().ffill(),
        }
    )


def drawn_at_random(study: Study) -> pd.DataFrame:
    """The trials of the search whose configurations the sampler drew without a model.

    All but the first, the default, with ``random`` and ``qmc`` (whose points are spread more evenly
    than at random); else those before the sampler believes its model.
    """
    search = of_search(study.trials)
    sampler = study.settings.get("sampler", "tpe")
    until = {"random": np.inf, "qmc": np.inf, "nsga2": GENERATION}.get(sampler, STARTUP)
    return search.loc[(search.trial_id > 0) & (search.trial_id < until)]


def random_reference(study: Study) -> pd.DataFrame | None:
    """What random search would have reached: the expected best of n of the trials drawn at random.

    Returns:
        ``expected_best`` of their scores, a row for each n up to their number; the expected
        ``tasks_trained`` and ``seconds`` of n such trials beside it. A trial that was stopped or
        failed counts among the n and has no score. None with fewer than ``FEWEST`` scores.

    Example:
        >>> random_reference(study).columns.tolist()
        ['trials', 'tasks_trained', 'seconds', 'score', 'low', 'high']
    """
    drawn = drawn_at_random(study)
    scores = drawn.score.astype(float).where(drawn.status == "completed").to_numpy()
    if np.isfinite(scores).sum() < FEWEST:
        return None
    found = expected_best(scores, len(scores)).rename(columns={"n": "trials", "mean": "score"})
    found.insert(1, "tasks_trained", found.trials * drawn.tasks_learned.mean())
    found.insert(2, "seconds", found.trials * drawn.seconds.astype(float).fillna(0.0).mean())
    return found
