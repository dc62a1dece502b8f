"""A study's tables for other programs: CSV for every one of them, LaTeX and Markdown for papers."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import comparison, tables
from analysis.log import RecordError, writing
from analysis.reading import Study

FRAMES = ("trials", "accuracy", "losses", "quality")
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"−": "$-$", "±": r"$\pm$"}


def csv(studies: Sequence[Study], folder: Path) -> list[Path]:
    """Write the frames of studies as CSV; of several studies each in a folder of its own.

    Beside them goes the table that ``result`` has, where there is one.

    Returns:
        The files.
    """
    files = []
    for study in studies:
        own = folder if len(studies) == 1 else folder / study.name
        with writing(own):
            own.mkdir(parents=True, exist_ok=True)
            for name in FRAMES:
                files.append(own / f"{name}.csv")
                getattr(study, name).to_csv(files[-1], index=False)
    if all(study.best is not None for study in studies):
        header, *rows = result(studies)[0]
        files.append(folder / ("final.csv" if len(studies) == 1 else "comparison.csv"))
        with writing(files[-1]):
            pd.DataFrame(rows, columns=["name", *header[1:]]).to_csv(files[-1], index=False)
    return files


def result(studies: Sequence[Study]) -> tuple[list[list[str]], str]:
    """The table that studies end in, header first, and its caption: of one study the final table,
    of several the comparison.

    Raises:
        RecordError: if a study has no winner yet, or they cannot be compared.
    """
    for study in studies:
        if study.best is None:
            raise RecordError(
                f"{study.directory} has no winner yet, so there is no final table: bring it to its"
                f" end with python run_search.py --resume {study.directory}, or take --csv"
            )
    if len(studies) == 1:
        rows = tables.of_study(studies[0])
        return tables.grid(rows), tables.caption(rows)
    entries, trials = comparison.read([study.directory for study in studies])
    grid = [[*comparison.HEADER], *comparison.cells(entries)]
    return grid, comparison.caption(entries, trials)


def markdown(studies: Sequence[Study]) -> str:
    """The table of ``result`` as Markdown.

    Example:
        >>> print(markdown([study]))  # doctest: +ELLIPSIS
        |                    | joint accuracy, % | ...
    """
    grid, caption = result(studies)
    return tables.as_markdown(grid, caption)


def latex(studies: Sequence[Study]) -> str:
    """The table of ``result`` as LaTeX, for the package booktabs."""
    grid, caption = result(studies)
    header, *rows = ["  " + " & ".join(map(escaped, row)) + r" \\" for row in grid]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            f"\\caption{{{escaped(caption)}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}",
            r"  \toprule",
            header,
            r"  \midrule",
            *rows,
            r"  \bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    r"""Text as LaTeX prints it.

    Example:
        >>> print(escaped("50 % ± 2"))
        50 \% $\pm$ 2
    """
    return re.sub(r"[\\~^&%$#_{}−±]", lambda found: LATEX[found[0]], text)
