"""What programs that use the library take to compile: seconds of one processor and memory, beside
Eigen and xsimd in the same run. Called by scripts/compile-time: compile_time.py ROOT OUTPUT ROUNDS"""
import json
import os
import pathlib
import subprocess
import sys

INCLUDE = '#include "cafeq/cafeq.hpp"\n'
CALL = INCLUDE + """double f(cafeq::View<const float> W) {{
  return cafeq::quantize(W, cafeq::recipes::{}{{}}).bits_per_weight();
}}
"""
BASE = "Eigen + xsimd"


def sources(root):
    """name -> (text, whether cafeq::compiled makes a difference)"""
    return {
        BASE: ("#include <Eigen/Dense>\n#include <xsimd/xsimd.hpp>\n", False),
        "cafeq.hpp": (INCLUDE, True),
        "fast<4>": (CALL.format("fast<4>"), True),
        "learned<3>": (CALL.format("learned<3>"), True),
        **{name: ((root / name).read_text(), differs) for name, differs in (
            ("examples/quickstart.cpp", True),
            ("examples/engine/kernels.cpp", False),
            ("examples/engine/packed.cpp", True),
            ("examples/engine/main.cpp", False),
            ("examples/quantize_model/quantizer.cpp", True),
            ("examples/quantize_model/main.cpp", False))},
    }


def compile_once(root, source, flags):
    """(seconds of a processor, megabytes)"""
    command = ["g++", "-std=c++20", "-O2", "-Wno-psabi", f"-I{root}/include", f"-I{root}/examples",
               f"-I{root}/examples/engine", "-isystem", "/usr/include/eigen3", *flags, "-c",
               str(source), "-o", os.devnull]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"compile-time: {' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    root, output, rounds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    output.mkdir(parents=True, exist_ok=True)
    rows = {}
    for _ in range(rounds):  # all of them a round, so that a busy minute hits more than one row
        for name, (text, differs) in sources(root).items():
            source = output / "source.cpp"
            source.write_text(text)
            for way, flags in (("headers", []), ("compiled", ["-DCAFEQ_COMPILED=1"])):
                if way == "compiled" and not differs:
                    continue
                seconds, memory = compile_once(root, source, flags)
                row = rows.setdefault(name, {}).setdefault(way, {"s": seconds, "MB": memory})
                row["s"] = min(row["s"], seconds)
    base = rows[BASE]["headers"]["s"]

    lines = ["| | headers only | | | cafeq::compiled | | |", "|---|--:|--:|--:|--:|--:|--:|",
             "| | s | × Eigen + xsimd | MB | s | × Eigen + xsimd | MB |"]
    for name, ways in rows.items():
        cells = []
        for way in ("headers", "compiled"):
            if way in ways:
                ways[way]["ratio"] = ways[way]["s"] / base
                cells += [f"{ways[way]['s']:.1f}", f"{ways[way]['ratio']:.2f}",
                          f"{ways[way]['MB']:.0f}"]
            else:
                cells += ["", "", ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (output / "result.json").write_text(json.dumps(rows, indent=1))
    (output / "result.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


main()
