"""The table of a run."""

from measuring.figures import FIGURES


def show(results, chains, baseline):
    """Prints a row for each figure and a column for each chain: median, spread, and the ratio to
    the baseline's median."""
    rows = [["", *(f"{name}*" if name == baseline else name for name in chains)]]
    for figure in FIGURES:
        medians = {name: results.median(name, figure.key) for name in chains}
        if all(value is None for value in medians.values()):
            continue
        cells = [_cell(results, name, figure, baseline) for name in chains]
        rows.append([f"{figure.title}, {figure.unit}".rstrip(", "), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, *others]).rstrip())
    if baseline in chains:
        print(f"median ±spread (largest − smallest) and ratio to {baseline}")


def _cell(results, chain, figure, baseline):
    median = results.median(chain, figure.key)
    if median is None:
        return "-"
    text = number(median)
    spread = results.spread(chain, figure.key)
    if spread is not None and len(results.values[chain][figure.key]) > 1:
        text += f" ±{spread:.0f}%"
    ratio = results.ratio(chain, baseline, figure.key)
    if figure.compared and ratio is not None and chain != baseline:
        text += f" {ratio:.2f}×"
    return text


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.3f}"
