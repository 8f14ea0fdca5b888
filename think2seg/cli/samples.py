"""Verbs of the embedded sample archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

from think2seg.cli.app import (
    Json,
    print_json,
    print_paths,
    samples_app,
    stdout,
)


@samples_app.command("list")
def samples_list(as_json: Json = False) -> None:
    """Show the embedded catalogs, as a monitor names them."""
    from think2seg.samples.archive import catalog_names, catalog_path

    catalogs = [{"catalog": f"sample:{name}", "path": str(catalog_path(name))} for name in catalog_names()]
    if as_json:
        print_json({"catalogs": catalogs})
    else:
        for catalog in catalogs:
            stdout.print(f"{catalog['catalog']:<32} {catalog['path']}", markup=False, soft_wrap=True)


@samples_app.command("build")
def samples_build(
    out: Annotated[Path, typer.Argument(help="Folder for the catalogs.")],
    naip: Annotated[Path, typer.Option(help="Static catalog of the NAIP wetlands imagery.")],
    nrt: Annotated[Path, typer.Option(help="The nrt 0.2.1 wheel, or the folder it was unpacked to.")],
    as_json: Json = False,
) -> None:
    """Build the embedded sample archive again from its sources."""
    from think2seg.samples.archive import build

    print_paths(build(out, naip_source=naip, nrt_wheel=nrt), as_json)
