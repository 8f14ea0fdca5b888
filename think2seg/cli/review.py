"""Verbs of the review loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from think2seg.cli.app import CubeUri, Json, app, monitor_at, print_json, stderr, stdout

review_app = typer.Typer(help="Let people judge a random sample of a cube, and learn from it.", no_args_is_help=True)
app.add_typer(review_app, name="review")


@review_app.command("sample")
def review_sample(
    cube: CubeUri,
    n: Annotated[int, typer.Option("--n", help="Units (tiles of one date) to draw.")] = 40,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Missing or empty folder.")] = Path("out/review"),
    seed: Annotated[int, typer.Option(help="The same cube and seed give the same sample.")] = 0,
    monitor: Annotated[
        Path | None, typer.Option(metavar="MONITOR.yaml", help="The monitor that filled the cube: where imagery lies.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Read the imagery of the units.")] = True,
    as_json: Json = False,
) -> None:
    """Draw a stratified random sample: a GeoPackage to redraw masks in, images, and a page to judge them on."""
    from think2seg.learning.review import draw_sample

    source = None if monitor is None else monitor_at(monitor, None)
    drawn = draw_sample(cube, out, n=n, seed=seed, monitor=source, images=images)
    lacking = sum(unit.image_sha256 is None for unit in drawn.units)
    if as_json:
        strata = [{"name": s.name, "size": s.size, "drawn": s.drawn, "weight": s.weight} for s in drawn.strata]
        print_json({"folder": str(out), "units": len(drawn.units), "population": drawn.population,
                    "without_image": lacking, "strata": strata})  # fmt: skip
        return
    for stratum in drawn.strata:
        stdout.print(f"{stratum.drawn:5} of {stratum.size:7,}  {stratum.name}", markup=False)
    if lacking:
        stderr.print(f"{lacking} of {len(drawn.units)} units have no image; the page says why.", markup=False)
    stdout.print(f"judge: {out / 'review.html'}\nredraw: {out / 'review.gpkg'}", markup=False, soft_wrap=True)


@review_app.command("import")
def review_import(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `review sample` wrote.")],
    store: Annotated[Path, typer.Option(metavar="DIR", help="The sample store.")] = Path("out/samples"),
    verdicts: Annotated[Path | None, typer.Option(help="The downloaded verdicts.json, if it is not in DIR.")] = None,
    cube: Annotated[str | None, typer.Option(metavar="URI", help="Where the cube is now, if it was moved.")] = None,
    as_json: Json = False,
) -> None:
    """Check what came back, add it to the sample store, and state accuracy and area with 95 % intervals."""
    from think2seg.learning.review import import_review

    done = import_review(folder, store, verdicts=verdicts, cube=cube)
    if as_json:
        print_json(done.to_dict())
        return
    for sentence in done.figures.sentences():
        stdout.print(sentence, markup=False, soft_wrap=True)
    for reason, count in done.left_out.items():
        stderr.print(f"no sample of {count} units: {reason}", markup=False)
    if done.note:
        stderr.print(done.note, markup=False)
    stdout.print(
        f"samples: {done.added} added, {done.known} known, {done.withdrawn} withdrawn "
        f"({done.train} train, {done.held_out} held out): {done.store}",
        markup=False,
        soft_wrap=True,
    )
