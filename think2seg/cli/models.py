"""Verbs of the registry: list, show, register, merge, compare, promote, roll back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from think2seg.cli.app import (
    Json,
    MonitorPath,
    Overrides,
    app,
    counting_bar,
    monitor_at,
    print_json,
    progress_bar,
    stdout,
    stopped_in_words,
)
from think2seg.errors import ConfigError
from think2seg.learning.verdict import SCENES

if TYPE_CHECKING:
    from think2seg.learning.registry import Move
    from think2seg.registry import Registry, Version

models_app = typer.Typer(help="Versions of the prompter: what is champion, and what may become it.",
                         no_args_is_help=True)  # fmt: skip
app.add_typer(models_app, name="models")

_NAMES = "An alias, a number, or the beginning of a digest."
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help=_NAMES)]
Footprints = Annotated[Path | None, typer.Option(metavar="FILE", help="Where the samples lie: GeoJSON, GeoPackage.")]


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """Show all versions with their aliases and verdicts, oldest first."""
    from think2seg.registry import find_registry

    registry = find_registry()
    versions = registry.versions() if registry else ()
    if as_json:
        print_json({"registry": registry and registry.uri, "versions": [version.to_dict() for version in versions]})
        return
    if registry is None or not versions:
        stdout.print("No version is registered; champion means the bundled pair.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("version", "aliases", "digest", "registered", "verdict"):
        table.add_column(column)
    for version in versions:
        table.add_row(str(version.number), " ".join(version.aliases), version.digest[:12],
                      f"{version.registered:%Y-%m-%d %H:%M}", _verdict_word(version))  # fmt: skip
    stdout.print(table)


@models_app.command("show")
def models_show(version: VersionName = "champion", as_json: Json = False) -> None:
    """Show everything that is known about a version."""
    found = _registry().named(version).to_dict()
    if as_json:
        print_json(found)
        return
    verdict = found.pop("verdict", None)
    for name, value in found.items():
        stdout.print(f"{name:<14} {_one_line(value)}", markup=False, soft_wrap=True)
    for check in verdict["checks"] if verdict else ():
        stdout.print(f"{'passed' if check['passed'] else 'FAILED':<14} {check['sentence']}", markup=False,
                     soft_wrap=True)  # fmt: skip


@models_app.command("register")
def models_register(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of weights.")],
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="record.json of the training run.")] = None,
    base: Annotated[
        str, typer.Option(help="Hub id or digest of the weights to begin with; default: the record's.")
    ] = "",
    licence: Annotated[
        str | None,
        typer.Option(
            help="As the Hugging Face hub names it; default what the training file says, else apache-2.0.",
            show_default=False,
        ),
    ] = None,
    footprints: Footprints = None,
    as_json: Json = False,
) -> None:
    """Put a folder of weights into the registry as the candidate."""
    from think2seg.learning.card import training_of
    from think2seg.learning.footprints import read_footprints
    from think2seg.learning.registry import register
    from think2seg.registry import open_registry

    training = training_of(record, base=base, licence=licence, footprints=read_footprints(footprints) if footprints
                           else {})  # fmt: skip
    version = register(open_registry(), folder, training)
    if as_json:
        print_json(version.to_dict())
    else:
        stdout.print(f"{version.name} {' '.join(version.aliases)} {version.digest}", markup=False, soft_wrap=True)


@models_app.command("merge")
def models_merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    parts: Annotated[
        list[str], typer.Argument(metavar="FOLDER=SHARE...", help="As models.prompter.path, and a number.")
    ],
) -> None:
    """Sum trainings of one model, each times its share, into new weights; shares add up to 1 and may be negative."""
    from think2seg.learning.merge import merge
    from think2seg.registry import resolve, weights_digest

    merge([(resolve("prompter", name), share) for name, share in map(_shared, parts)], out)
    stdout.print(f"{out} {weights_digest(out)}", markup=False, soft_wrap=True)


def _shared(part: str) -> tuple[str, float]:
    """The two halves of FOLDER=SHARE."""
    name, _, share = part.rpartition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(part, "FOLDER=SHARE, such as runs/tiny-grpo/weights=0.5", "Add the share.") from None


@models_app.command("compare")
def models_compare(
    candidate: Annotated[str, typer.Argument(metavar="A", help=_NAMES)] = "candidate",
    champion: Annotated[str, typer.Argument(metavar="B", help=_NAMES)] = "champion",
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of a --dataset.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A labelled dataset, such as earthreason.")] = None,
    split: Annotated[str, typer.Option(help="Its frozen split.")] = "val",
    scenes: Annotated[
        int, typer.Option(min=30, help="Without a dataset: simulated scenes, and as many embedded tiles.")
    ] = SCENES,
    segmenter: Annotated[str, typer.Option(help="As models.segmenter.path of a monitor.")] = "bundled",
    footprints: Footprints = None,
    training: Annotated[
        Path | None, typer.Option(help="A folder like EarthReason whose split train A learnt from: by heart?")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for answers, verdict.json and verdict.md.")] = Path("out/gate"),
    as_json: Json = False,
) -> None:
    """Judge A against B on a frozen set; a verdict that is already known is shown again."""
    from think2seg.learning.comparison import compare_versions, held_out_set
    from think2seg.learning.datasets import read_dataset
    from think2seg.learning.footprints import read_footprints
    from think2seg.learning.verdict import verdict_markdown
    from think2seg.samples.ground import held_out_ground

    if dataset is not None and folder is None:
        raise ConfigError(f"--dataset {dataset} without a folder", "models compare A B DIR --dataset NAME", "Add DIR.")
    if dataset is None or folder is None:
        frozen, seen = held_out_set(out, scenes), dict(held_out_ground())
    else:
        frozen, seen = read_dataset(dataset, folder, split), {}
    if footprints:
        seen |= read_footprints(footprints)
    registry = _registry()
    ours, theirs = registry.named(candidate), registry.named(champion)
    learnt = read_dataset("earthreason", training, "train") if training else None
    with counting_bar() as show:
        verdict = compare_versions(
            registry, ours, theirs, frozen, out, segmenter=segmenter, footprints=seen, training=learnt, on_progress=show
        )
    if as_json:
        print_json(verdict.to_dict())
    else:
        stdout.print(verdict_markdown(verdict), markup=False, soft_wrap=True)


@models_app.command("shadow")
def models_shadow(
    monitor: MonitorPath,
    version: VersionName = "candidate",
    set_: Overrides = None,
    last: Annotated[int, typer.Option(min=1, help="Acquisitions, counted back from the newest.")] = 3,
    as_json: Json = False,
) -> None:
    """Answer a monitor's last acquisitions with a version, beside its cubes, and compare."""
    from think2seg.coordinator import cube_uris, run_shadow
    from think2seg.insight.overlap import shadow_overlap

    asked, found = monitor_at(monitor, set_), _registry().named(version)
    with stopped_in_words(), progress_bar() as show:
        summary = run_shadow(asked, found, last=last, on_progress=show)
    overlaps = [one for uri in cube_uris(asked) if (one := shadow_overlap(uri, found.digest))]
    if as_json:
        print_json({"overlaps": [one.to_dict() for one in overlaps], "run": summary.to_dict()})
    else:
        stdout.print(summary.sentence(), markup=False, soft_wrap=True)
        for one in overlaps:
            stdout.print(one.sentence(), markup=False, soft_wrap=True)
    raise typer.Exit(summary.exit_code)


@models_app.command("promote")
def models_promote(
    version: VersionName = "candidate",
    force: Annotated[str, typer.Option(metavar="REASON", help="Promote without a passing verdict, and why.")] = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion; refused without a passing verdict against the champion of now."""
    from think2seg.learning.registry import promote

    _tell(promote(_registry(), version, force=force), as_json)


@models_app.command("rollback")
def models_rollback(
    because: Annotated[str, typer.Option(metavar="REASON", help="Kept with the version that is taken back.")] = "",
    as_json: Json = False,
) -> None:
    """Make the previous version the champion again."""
    from think2seg.learning.registry import roll_back

    _tell(roll_back(_registry(), because=because), as_json)


def _registry() -> Registry:
    from think2seg.registry import find_registry

    if registry := find_registry():
        return registry
    raise ConfigError(
        "There is no registry yet; champion means the bundled pair.",
        "THINK2SEG_REGISTRY names a folder, or an MLflow server; by default it is the folder registry.",
        "Register weights first: think2seg models register FOLDER",
    )


def _tell(move: Move, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(move))
    else:
        stdout.print(move.sentence(), markup=False, soft_wrap=True)


def _verdict_word(version: Version) -> str:
    verdict = version.document("verdict")
    if verdict is None:
        return ""
    failed = [check["name"] for check in verdict["checks"] if not check["passed"]]
    return f"{'refused: ' + ', '.join(failed) if failed else 'passed'} (against {verdict['champion'][:12]})"


def _one_line(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
