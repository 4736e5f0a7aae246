"""Commands that follow sweeps, and hand their results to other tools: watch, serve, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from raymae.cli.base import as_json, example, main, results_dir, show_value, table, with_importance


@main.command()
@results_dir
@click.option("--once", is_flag=True, help="Look once; a folder without a sweep is an error then.")
@click.option("--every", "every_s", type=click.FloatRange(min=0.1), default=2.0, show_default=True, metavar="SECONDS",
              help="Time between two looks.")
@as_json
@example("raymae watch s3://bucket/sweeps/timeseries-mask")
def watch(directory: str, once: bool, every_s: float, as_json: bool) -> None:
    """Follow the sweep in DIR, a folder or a URI, until it ends: from another terminal or another machine.

    Reads the results alone. A folder that is not there yet is waited for. With --json every change is an object of one
    line. Ctrl-C ends the watching, not the sweep.
    """
    from rich.console import Console

    from raymae.results.views.watch import watch as run

    console = Console(stderr=as_json)
    try:
        run(directory, console, once=once, as_json=as_json, every_s=every_s, say=click.echo)
    except KeyboardInterrupt:
        console.print("no longer watching; the sweep goes on", style="dim")
        sys.exit(130)


@main.command()
@results_dir
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8275, show_default=True, help="0 takes a free one.")
@click.option("--open-to-network", is_flag=True,
              help="Allow a --host that other machines can reach: whoever can reach it can read every sweep.")
@example("raymae serve results")
def serve(directory: str, host: str, port: int, open_to_network: bool) -> None:
    """Serve the sweeps in DIR as a web page: their progress, live, and the report of each. Read-only.

    Curves of what runs, a page for each trial with its parameters, log and error, and a comparison of all sweeps. DIR
    is a folder of sweeps or one sweep, a path or a URI. There is no password, so it listens on this machine alone; from
    another one: ssh -L 8275:127.0.0.1:8275 MACHINE
    """
    from raymae.web.app import serve as run
    from raymae.web.guard import is_loopback

    if not is_loopback(host):
        if not open_to_network:
            raise click.BadParameter(
                f"other machines can reach {host}, and there is no password. Forward the port instead (ssh -L "
                f"{port}:127.0.0.1:{port} MACHINE), or add --open-to-network", param_hint="--host")
        click.secho(f"warning: whoever can reach {host} can read every sweep in {directory}", fg="yellow", err=True)

    def render(root: str) -> str:
        from raymae.results.report.report import render_report
        from raymae.results.verdict.effects import explained_if_two

        store, importance = with_importance(root)
        return render_report(store, importance=importance, explanation=explained_if_two(store))

    run(directory, host=host, port=port, render=render, say=lambda url: click.echo(f"{url}  (Ctrl-C ends)"))


@main.command()
@results_dir
@click.option("--optuna", "url", metavar="URL",
              help="Write Optuna studies into a storage such as sqlite:///study.db: one of all arms, and one per arm.")
@click.option("--csv", "csv", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the trials, one a line.")
@click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write TensorBoard's event files, a folder per trial.")
@click.option("--encoder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write a pretrained encoder, in the files that --to says.")
@click.option("--to", "kind", type=click.Choice(["timm", "hf", "torch"]), default="torch", show_default=True,
              help="For whom: timm's VisionTransformer, Hugging Face's ViTModel and ViTMAEForPreTraining, or ours.")
@click.option("--onnx", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write a kept network as ONNX, checked with onnxruntime.")
@click.option("--arm", metavar="ARM", help="Whose encoder or network: its best replicate's. Default: the pretrained "
                                           "arm's encoder, the best arm's network.")
@as_json
@example("""
raymae export results/timeseries-mask --optuna sqlite:///timeseries-mask.db --csv trials.csv
raymae export results/image-classification --encoder encoder --to timm
raymae export results/timeseries-mask --onnx timeseries.onnx --arm mae
""")
def export(
    directory: str, url: str | None, csv: Path | None, tensorboard: Path | None, encoder: Path | None,
    kind: Literal["timm", "hf", "torch"], onnx: Path | None, arm: str | None, as_json: bool,
) -> None:
    """Hand the sweep in DIR, a folder or a URI, to other tools; nothing that is there is overwritten.

    In Optuna's studies a stopped trial is pruned, with its intermediate values. Open them with
    `optuna-dashboard sqlite:///timeseries-mask.db`, the event files with `tensorboard --logdir FOLDER`. The folder of
    an encoder has a README with the lines that load it.
    """
    from raymae.results.store.store import Store

    if not (url or csv or tensorboard or encoder or onnx):
        raise click.UsageError("say what to write: --optuna URL, --csv FILE, --tensorboard FOLDER, --encoder FOLDER or "
                               "--onnx FILE")
    store = Store.open(directory)
    written: list[dict[str, Any]] = []
    if encoder is not None:
        from raymae.inference.export_encoder import export_encoder

        done = export_encoder(directory, encoder, kind, arm)
        written.append({"what": f"encoder of {done.arm} for {done.what}", "where": done.where, "trials": None,
                        "encoder_id": done.encoder_id, "files": list(done.files)})
    if onnx is not None:
        from raymae.inference.export_onnx import export_onnx

        network = export_onnx(directory, onnx, arm)
        written.append({"what": f"{network.holds} of {network.arm}, within {network.max_difference:.1g} of it in "
                                "onnxruntime", "where": network.where, "trials": None, **network._asdict()})
    if csv is not None:
        from raymae.results.views.export import write_csv

        written.append({"what": "csv", "where": str(csv), "trials": write_csv(store, csv)})
    if tensorboard is not None:
        from raymae.results.views.tensorboard import export as write_events

        written.append({"what": "tensorboard", "where": str(tensorboard), "trials": write_events(store, tensorboard)})
    if url is not None:
        from raymae.search.decide.export import export as write_studies

        written += [{"what": "optuna", "where": f"{url} {name}", "trials": count}
                    for name, count in write_studies(store, url).items()]
    show_value(written, lambda: table(written, ("what", "where", "trials")), as_json)
