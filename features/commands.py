"""`affuse features …`: options and help only; every command is one call into the package."""

from __future__ import annotations

import json
import sys

import click

from features.console import FOLDER, JSON, show_progress


@click.group()
def features() -> None:
    """Look at a feature store, check it and repair it."""


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def info(store, as_json) -> None:
    """What a store holds, and what is missing and why. Exit 1 where something is damaged."""
    from features.report import account, describe
    from features.store import FeatureStore

    facts = account(FeatureStore(store).info())
    if as_json:
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        click.echo(text.encode("utf-8", "backslashreplace"))  # a lone surrogate as JSON escapes it
    else:
        click.echo(describe(facts))
    sys.exit(bool(facts["damaged"]))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def verify(store, as_json) -> None:
    """Read every byte of a store and compare it with its digests. Exit 1 where something is damaged."""
    from dataclasses import asdict

    from features.report import describe_verification
    from features.store import FeatureStore

    verification = FeatureStore(store).verify()
    if as_json:
        click.echo(json.dumps(asdict(verification), indent=2))
    else:
        click.echo(describe_verification(verification))
    sys.exit(bool(verification.problems))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def repair(store, as_json) -> None:
    """Move what is damaged or misnamed to STORE/quarantine; the next extract makes those videos anew."""
    from dataclasses import asdict

    from features.repair import quarantine
    from features.report import describe_repair
    from features.store import FeatureStore

    moved = quarantine(FeatureStore(store))
    facts = {"quarantined": [asdict(shard) for shard in moved]}
    click.echo(json.dumps(facts, indent=2) if as_json else describe_repair(moved))


@features.command("import")
@click.argument("store", type=FOLDER)
@click.option("--from", "source", type=FOLDER, required=True, help="Folder of folders visual, audio, text.")
@click.option("--folder", "folders", multiple=True, metavar="MODALITY=NAME", help="A folder of another name.")
@click.option(
    "--rate", "rates", multiple=True, metavar="[MODALITY=]RATE", help="Rows per second without a time."
)
@click.option("--time-column", default="time", show_default=True, help="The column of seconds.")
@click.option(
    "--ignore", multiple=True, metavar="COLUMN", help="A column that is no feature; may be repeated."
)
@JSON
def import_(store, source, folders, rates, time_column, ignore, as_json) -> None:
    """Features computed elsewhere into a store: <modality>/<video>.npy, .npz or .csv; NaN marks missing rows."""
    from features.importing import describe, import_features, parse_layout

    layout = parse_layout(folders, rates, time_column, ignore)
    result = import_features(source, store, layout, show_progress)
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))
    sys.exit(bool(result["failed"]))


@features.command("export")
@click.argument("store", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to fill; it must be empty or new.")
@click.option("--format", "kind", default="npz", show_default=True, help="npz, parquet, or abaw3.")
@JSON
def export(store, out, kind, as_json) -> None:
    """Features for other programs: a file per video and modality, or the folders of the ABAW3 and RJCMA code. Of faces
    with several views, the centre."""
    from features.exporting import export_features
    from features.store import FeatureStore

    result = export_features(FeatureStore(store), out, kind, show_progress)
    click.echo(
        json.dumps(result, indent=2)
        if as_json
        else f"{result['videos']} videos, {result['files']} files: {out}"
    )
