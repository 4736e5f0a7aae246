"""Commands about clusters' files: check one offline, and make on AWS what one needs."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from raymae.cli import completion
from raymae.cli.base import Group, as_json, example, main, table
from raymae.errors import SpecError

cluster_file = click.argument("file", type=click.Path(dir_okay=False), shell_complete=completion.cluster_files)


@main.group(cls=Group)
@example("raymae cluster check cluster/aws.yaml")
def cluster() -> None:
    """Check the file of a cluster, and prepare for it."""


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
