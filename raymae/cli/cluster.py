"""Commands about clusters' files: check one offline, and make on AWS what one needs."""

from __future__ import annotations

import json
import sys

import click

from raymae.cli.base import Group, as_json, example, main, table
from raymae.errors import SpecError

cluster_file = click.argument("file", type=click.Path(dir_okay=False))


@main.group(cls=Group)
def cluster() -> None:
    """Check the file of a cluster, and prepare for it."""


@cluster.command("check")
@cluster_file
@as_json
@example("raymae cluster check cluster/aws.yaml")
def cluster_check(file: str, as_json: bool) -> None:
    """Check a file for `ray up`, or Kubernetes manifests, without asking any cloud.

    Against Ray's own schema, and rules of ours: nothing open but SSH, a token, no trial drivers on machines that come
    and go, known machines, encrypted volumes. Prints what an hour costs.
    """
    from raymae.launch.check import check_cluster

    found = check_cluster(file)
    if as_json:
        low, high = found.usd_per_hour or (None, None)
        click.echo(json.dumps({
            "file": found.file, "provider": found.provider, "ok": not found.problems,
            "problems": [vars(problem) for problem in found.problems],
            "nodes": [vars(node) for node in found.nodes],
            "usd_per_hour": {"idle": low, "most": high, "region": found.region, "kind": "about, on demand; check"},
        }, indent=2))
        if found.problems:
            sys.exit(SpecError.exit_code)
        return
    if found.problems:
        raise SpecError(found.problems)
    click.echo(f"{file}: no problem found ({found.provider}).")
    if found.nodes:
        from rich.console import Console

        rows = [{"type": node.name, "machine": node.machine, "GPUs": node.gpus,
                 "market": "spot" if node.spot else "on demand", "nodes": f"{node.fewest} to {node.most}",
                 "$/h each": f"{node.usd_per_hour:.2f}"} for node in found.nodes if node.usd_per_hour is not None]
        Console(width=100).print(table(rows, ("type", "machine", "GPUs", "market", "nodes", "$/h each")))
    if found.usd_per_hour:
        low, high = found.usd_per_hour
        click.echo(f"Costs {low:.2f} $/h with no trial waiting, at most {high:.2f} $/h: about, {found.region} on "
                   "demand, check. Spot is usually less. Volumes, traffic and storage are not in it.")
    else:
        click.echo("What its machines cost per hour is not known here.")


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
