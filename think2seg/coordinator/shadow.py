"""The shadow run: a monitor's last acquisitions answered by another version of the prompter, beside the cube."""

from __future__ import annotations

from think2seg.config import LocalPrompter, Monitor
from think2seg.coordinator.prepare import cube_uris
from think2seg.coordinator.run import OnProgress, run_archive
from think2seg.coordinator.summary import RunSummary
from think2seg.cube import is_cube, open_cube, sibling_uri
from think2seg.errors import ConfigError
from think2seg.registry import Version


def run_shadow(
    monitor: Monitor, version: Version, *, last: int = 3, on_progress: OnProgress = lambda progress: None
) -> RunSummary:
    """Answer the last acquisitions that a monitor's cubes hold with another version, into sibling cubes.

    The cubes themselves are only read. A shadow run that was interrupted goes on where it was.

    Parameters
    ----------
    version
        Who answers; it need not have been promoted.
    last
        Acquisitions to answer, counted back from the newest one that the cubes show.

    Raises
    ------
    ConfigError
        The monitor's cubes show nothing yet, or a served prompter answers it.
    Think2SegError
        As for `run_archive`.
    """
    if not isinstance(monitor.models.prompter, LocalPrompter):
        raise ConfigError(
            f"models.prompter of {monitor.monitor} is {monitor.models.prompter.kind}.",
            "A version of the registry is a folder of weights: kind local.",
            "Serve the candidate under another name and run a monitor of its own.",
        )
    days = sorted({time for uri in cube_uris(monitor) if is_cube(uri) for time in open_cube(uri)["time"].values})
    if not days:
        raise ConfigError(
            f"The cubes of {monitor.monitor} show nothing yet.",
            "A shadow run answers acquisitions again that they hold.",
            "Run the monitor first: think2seg run MONITOR.yaml",
        )
    since, until = (day.astype("datetime64[D]").item() for day in (days[-last:][0], days[-1]))
    return run_archive(shadow_of(monitor, version), since=since, until=until, on_progress=on_progress)


def shadow_of(monitor: Monitor, version: Version) -> Monitor:
    """The monitor that asks a version of the registry, and writes beside the cubes of `monitor`."""
    cube = monitor.cube.model_copy(update={"uri": sibling_uri(monitor.cube.uri, version.digest)})
    prompter = monitor.models.prompter.model_copy(update={"path": version.uri})
    return monitor.model_copy(update={"cube": cube, "models": monitor.models.model_copy(update={"prompter": prompter})})
