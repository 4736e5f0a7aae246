"""Commands about clusters' files: check one offline, and make on AWS what one needs."""

from __future__ import annotations

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
