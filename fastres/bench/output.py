"""A benchmark's result on the screen and in a record: table, JSON, chart, the command line."""

import shlex
from pathlib import Path

from fastres.machine import strict_json
from fastres.track.record import record_folder


def table(result: dict) -> str:
    """Markdown, readable on a terminal as it is."""
    machine, lines = result["machine"], []
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    lines.append(f"{where}, {machine['threads']} threads, torch {machine['libraries']['torch']}, {machine['date']}")
    for mode, bandwidth in result.get("write_bandwidth_gb_per_s", {}).items():
        lines.append(f"write bandwidth {bandwidth:.1f} GB/s, {mode} (a reused float32 buffer of a batch, filled)")
    written = any(row["written_gb_per_s"] for row in result["rows"])  # a step writes nothing that is to be compared
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        columns = " output GB/s | of write bandwidth |" if written else ""
        lines += ["", f"| {mode} | img/s | range |{columns} not equal |"]
        lines += [f"|---|---:|---:|{'---:|---:|' if written else ''}---|"]
        for row in sorted((r for r in result["rows"] if r["mode"] == mode), key=lambda r: -r["img_per_s"]):
            share = row["share_of_write_bandwidth"]
            name = f"**{row['name']} {row['dtype']}**" if row["ours"] else f"{row['name']} {row['dtype']}"
            shares = f" {row['written_gb_per_s']:.2f} | {'' if share is None else f'{share:.0%}'} |" if written else ""
            lines.append(
                f"| {name} | {row['img_per_s']:,.0f} | {row['lowest']:,.0f}–{row['highest']:,.0f} |{shares} "
                f"{row['note']} |"
            )
    lines += ["", *(f"{ratio:7.2f}x  {name}" for name, ratio in result["ratios"].items())]
    for mode, floor in result.get("floors", {}).items():
        best = max((row["img_per_s"] for row in result["rows"] if row["mode"] == mode and row["ours"]), default=0.0)
        lines.append(f"{best / floor:7.0%}   of the floor of {floor:,} img/s, {mode}")
    lines += [result["floor_note"]] if "floor_note" in result else []
    lines += [f"left out: {line}" for line in result.get("skipped", [])]
    return "\n".join(lines)


WIDEST = 20  # times the shortest bar that the longest of a linear scale may be


def chart(result: dict, path: Path) -> None:
    """Horizontal bars, one panel per mode, ours in colour; images per second from 0, on a logarithmic scale where a bar
    would be too short to see.

    A dashed line is the mode's floor, where the result has one; `floor_note` stands above all.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    modes = list(dict.fromkeys(row["mode"] for row in result["rows"]))
    count = [sum(row["mode"] == mode for row in result["rows"]) for mode in modes]
    size = (9, 0.8 * len(modes) + 0.34 * sum(count))
    figure, axes = plt.subplots(
        len(modes), 1, figsize=size, squeeze=False, layout="constrained", gridspec_kw={"height_ratios": count}
    )
    for axis, mode in zip(axes[:, 0], modes):
        rows = sorted((r for r in result["rows"] if r["mode"] == mode), key=lambda r: r["img_per_s"])
        bars = axis.barh(
            [f"{r['name']} {r['dtype']}" for r in rows],
            [r["img_per_s"] for r in rows],
            color=["#d1495b" if r["ours"] else "#8d99ae" for r in rows],
        )
        axis.bar_label(bars, labels=[f"{r['img_per_s']:,.0f}" for r in rows], padding=3, fontsize=8)
        if mode in result.get("floors", {}):
            axis.axvline(result["floors"][mode], color="#1d3557", linestyle="--", label="floor")
        rates = [r["img_per_s"] for r in rows]
        if min(rates) < max(rates) / WIDEST:
            axis.set_xscale("log")
        axis.set_title(mode, fontsize=10, loc="left")
        axis.set_xlabel("img/s, logarithmic" if axis.get_xscale() == "log" else "img/s")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    if "floor_note" in result:
        figure.suptitle(result["floor_note"], fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def publish(name: str, result: dict, command: list[str], args, texts: dict[str, str] | None = None) -> None:
    """Print the table; write --json and --record where asked for. `texts`, by file name, go into the record, or where
    there is none onto the screen; empty ones nowhere."""
    result = {"command": f"python -m fastres.bench {shlex.join([name, *command])}", **result}
    print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(strict_json.dumps(result, indent=1) + "\n")
    if args.record:
        folder = record_folder(args.record, f"bench-{name}", result["machine"])
        (folder / f"{name}.json").write_text(strict_json.dumps(result, indent=1) + "\n")
        (folder / "table.md").write_text(f"`{result['command']}`\n\n{table(result)}\n")
        chart(result, folder / "chart.png")
    for file_name, text in (texts or {}).items():
        if text and args.record:
            (folder / file_name).write_text(text + "\n")
        elif text:
            print(f"\n{text}")
    if args.record:
        print(f"recorded in {folder}")
