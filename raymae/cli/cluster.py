"""Commands about clusters: check a file offline, make on AWS what one needs, hand a sweep to Slurm."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import click

from raymae.cli import completion
from raymae.cli.base import Group, as_json, example, load, main, overrides, sweep_file, table
from raymae.errors import SpecError

cluster_file = click.argument("file", type=click.Path(dir_okay=False), shell_complete=completion.cluster_files)


@main.group(cls=Group)
@example("raymae cluster check cluster/aws.yaml")
def cluster() -> None:
    """Check the file of a cluster, prepare for it, or run a sweep under Slurm."""


@cluster.command("check")
@cluster_file
@as_json
@example("raymae cluster check cluster/aws.yaml")
def cluster_check(file: str, as_json: bool) -> None:
    """Check a file for `ray up`, Kubernetes or `docker compose`, or a policy of AWS's, without asking any cloud.

    Against Ray's own schema, and rules of ours: nothing open but SSH, a token, no trial drivers on machines that come
    and go, known machines, encrypted volumes, no rights to everything. Prints what an hour costs.
    """
    from raymae.launch.check import check_cluster

    checked = check_cluster(file)
    if as_json:
        click.echo(json.dumps(checked.to_json(), indent=2))
        if checked.problems:
            sys.exit(SpecError.exit_code)
        return
    if checked.problems:
        raise SpecError(checked.problems)
    click.echo(f"{file}: no problem found ({checked.provider}).")
    if checked.nodes:
        from rich.console import Console

        columns = ("type", "machine", "GPUs", "market", "nodes", "$/h each")
        Console(width=100).print(table(checked.node_rows(), columns))
    click.echo(checked.costs())


@cluster.command("prices")
@click.option("--refresh", is_flag=True, help="Ask AWS (boto3, with your credentials) and Azure for today's.")
@as_json
@example("raymae cluster prices --refresh")
def cluster_prices(refresh: bool, as_json: bool) -> None:
    """What machines cost for an hour on demand: about, dated, in one region of each provider.

    `raymae cluster check` reckons with these. Google's are as shipped: its list wants a key.
    """
    from raymae.launch import price_list

    told = price_list.refresh() if refresh else {}
    lists = price_list.price_lists()
    if as_json:
        plain = {kind: dataclasses.asdict(one) for kind, one in lists.items()}
        click.echo(json.dumps({"refreshed": told, "prices": plain} if refresh else plain, indent=2))
        return
    from rich.console import Console

    rows = [{"provider": kind, "machine": name, "GPUs": gpus, "$/h": f"{usd:.2f}", "region": one.region,
             "dated": one.dated} for kind, one in lists.items() for name, (usd, gpus) in one.machines.items()]
    Console(width=100).print(table(rows, ("provider", "machine", "GPUs", "$/h", "region", "dated")))
    for kind, text in told.items():
        click.echo(f"{kind}: {text}", err=True)


@cluster.command("prepare")
@cluster_file
@example("raymae cluster prepare cluster/aws.yaml")
def cluster_prepare(file: str) -> None:
    """Make on AWS what a cluster file needs: bucket, security group, two instance profiles.

    Each with the least rights, which Ray by itself would not take: SSH from `metadata.ssh_cidr` alone, the profiles'
    rights from `aws-head.json` and `aws-worker.json` beside the file. Writes the security group into the file. Running
    it again corrects what has changed.
    """
    from raymae.launch.prepare_aws import prepare_aws

    made = prepare_aws(file)
    click.echo(f"bucket {made.bucket}, security group {made.security_group} (now in {file}), "
               f"instance profiles {', '.join(made.profiles)}")


@cluster.command("slurm")
@sweep_file
@click.option("--time", required=True, metavar="TIME", help="Limit of one run, as 12:00:00 or 2-00:00:00.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines.")
@click.option("--gpus-per-node", metavar="[TYPE:]N", default="0", show_default=True, help="GPUs of each.")
@click.option("--cpus-per-node", type=click.IntRange(min=1),
              help="CPUs of each; by default what the trials need that fit on its GPUs.")
@click.option("--partition", metavar="NAME", help="Slurm's partition; the cluster's default if not given.")
@click.option("--account", metavar="NAME", help="Whose time it is.")
@click.option("--qos", metavar="NAME", help="Its quality of service.")
@click.option("--module", "modules", multiple=True, metavar="NAME", help="Load a module first; repeatable.")
@click.option("--setup", multiple=True, metavar="LINE", help="A line of bash before Ray starts; repeatable.")
@click.option("--python", metavar="PATH",
              help="The interpreter; by default the one that runs this, after --setup the one on PATH.")
@click.option("--signal-before", type=click.IntRange(60, 65_535), default=120, show_default=True, metavar="SECONDS",
              help="How long before the limit trials are handed back.")
@click.option("--job-name", metavar="NAME", help="The sweep's name by default.")
@click.option("--output", default="%x-%j.log", show_default=True, metavar="PATH", help="What it prints goes there.")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="Another option of sbatch's; repeatable.")
@click.option("--submit", is_flag=True, help="Hand the script to sbatch instead of printing it.")
@overrides
@as_json
@example("raymae cluster slurm sweeps/timeseries_mask.yaml --nodes 4 --gpus-per-node 4 --time 12:00:00 --submit "
         "--set resources.gpus_per_worker=1")
def cluster_slurm(
    file: str, time: str, nodes: int, gpus_per_node: str, cpus_per_node: int | None, partition: str | None,
    account: str | None, qos: str | None, modules: Sequence[str], setup: Sequence[str], python: str | None,
    signal_before: int, job_name: str | None, output: str, sbatch: Sequence[str], submit: bool,
    overrides: Sequence[str], as_json: bool,
) -> None:
    """Print the script that runs the sweep of FILE as a job of Slurm's, or submit it.

    The job starts Ray on its nodes with a token of its own, then the sweep. Before its time limit it hands its trials
    back, writes the verdict so far and queues itself again; its next run goes on from there. Submit from a folder
    that all nodes share: results and FILE lead from it.
    """
    from raymae.launch import slurm

    spec = load(file, overrides)
    job = slurm.SlurmJob(
        file=file, job_name=job_name or spec.name, resources=spec.resources, time=time, folder=os.getcwd(),
        overrides=overrides, nodes=nodes, gpus_per_node=gpus_per_node, cpus_per_node=cpus_per_node,
        partition=partition, account=account, qos=qos, modules=modules, setup=setup,
        python=python or ("python" if setup else sys.executable), signal_before=signal_before, output=output,
        sbatch=sbatch,
    )
    script = slurm.render(job)
    number = slurm.submit(script) if submit else None
    results = f"{spec.results.rstrip('/')}/{spec.name}"
    if as_json:
        click.echo(json.dumps({"job": number, "sweep": spec.name, "results": results,
                               "trials_at_once": job.trials_at_once, "script": script}, indent=2))
    elif number is None:
        click.echo(script, nl=False)
    else:
        click.echo(
            f"submitted {number}: room for {job.trials_at_once} trials at once\n  squeue --job {number}\n"
            f"  raymae watch {results}\n  scancel --batch --signal=INT {number}   # as Ctrl-C: the verdict so far"
        )
