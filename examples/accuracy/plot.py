"""plot.py PAGE.md OUT.svg

Draws KL against bits from the tables of a page: those with a column "bits" and one "KL", a row for
each point, which the first column names. Needs matplotlib.
"""
import re
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# Names in the order in which they are tried on a row's first cell, and how they are drawn.
SERIES = [
    ("smallest by sensitivity, own text", r"`smallest` by sensitivity, own text$", "o-", "C3"),
    ("smallest, own text", r"`smallest`, own text$", "o--", "C1"),
    ("smallest, weights alone", r"`smallest`$", "o:", "C5"),
    ("fast affine g64, own text", r"`fast` affine g64, own text$", "s--", "C0"),
    ("fast affine g64, weights alone", r"`fast` affine g64$", "s:", "C9"),
    ("GGUF types, own text", r"gguf:\w+, own text$", "D", "C2"),
    ("llama.cpp's quantizer", r"llama\.cpp ", "x", "C7"),
    ("GPTQ g64, data", r"GPTQ", "^-", "black"),
    ("SINQ g64", r"SINQ", "v-", "C4"),
    ("HQQ g64", r"HQQ", "<-", "C6"),
    ("HIGGS", r"HIGGS", ">-", "C8"),
    ("NF4 g64", r"NF4", "*", "C7"),
]


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(cell):
    found = re.match(r"\d*\.?\d+(e[+-]?\d+)?", cell)
    return float(found[0]) if found else None


def rows(path):
    """(name, bits, KL) of each row of each table that has them."""
    head = None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("|"):
                head = None
                continue
            row = cells(line)
            if head is None:
                head = row
            elif "bits" in head and "KL" in head and len(row) == len(head):
                bits, kl = number(row[head.index("bits")]), number(row[head.index("KL")])
                if bits and kl:
                    yield row[0], bits, kl


def main(page, out):
    points = {}
    for name, bits, kl in rows(page):
        for label, pattern, *_ in SERIES:
            if re.match(pattern, name):
                points.setdefault(label, []).append((bits, kl))
                break
    plt.rcParams.update({"svg.hashsalt": "cafeq", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(9, 5))
    for label, _, style, colour in SERIES:
        if label in points:
            axes.semilogy(*zip(*sorted(points[label])), style, color=colour, label=label,
                          markersize=5, linewidth=1)
    axes.set(xlim=(1.5, 5), ylim=(.02, 12), xlabel="bits a weight, everything counted",
             ylabel="KL, nats a token")
    axes.grid(True, which="both", linewidth=.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:3])
