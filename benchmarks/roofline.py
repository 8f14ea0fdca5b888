"""What the hardware allows: operations and bytes per tile, and the tiles per second that no implementation can exceed.

Counted from the models' numbers, phase by phase: the vision tower, reading the prompt, writing the answer, the
segmenter's encoder and its decoder. A phase takes at least its operations divided by the processor's peak, and at least
its bytes (weights, divided among the tiles that share them, and keys and values) divided by the memory's bandwidth.
Of the bundled pair every matrix product, attention, activation and layer norm is also timed alone, in its own shape, as
PyTorch's kernels do it, while all cores do the same: what remains is all that another arrangement of the same
arithmetic could save. Its tile is the mean of those that `engine.py` is timed with: so many are drawn at all, with so
many instances, and so many tokens answer.

    python benchmarks/roofline.py                 full-size models on named GPUs, and the bundled pair on this machine
    python benchmarks/roofline.py --measure 3B    with a GPU at hand: random weights of that size, and the share reached
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from threading import Barrier
from typing import Any

import torch
from engine import jobs_of, spec_of
from rasterio.errors import NotGeoreferencedWarning
from reference_loop import QUESTIONS
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from think2seg.config import load_monitor
from think2seg.engine import Models
from think2seg.imagery import BLOCKING, cut_tiles, read_block
from think2seg.prompting.answers import parse_answer
from think2seg.registry import resolve
from think2seg.segmentation import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A processor with its memory."""

    name: str
    flops: float
    """Peak operations a second in the format that the models run in, without sparsity."""
    bytes_s: float
    source: str


GPUS = (
    Machine(name="L4", flops=121e12, bytes_s=300e9, source="NVIDIA L4 datasheet: 242 TFLOPS bf16 sparse, 300 GB/s"),
    Machine(name="RTX 4090", flops=165.2e12, bytes_s=1008e9,
            source="NVIDIA Ada whitepaper 1.1: 165.2 TFLOPS bf16 (fp32 sums), 1008 GB/s"),
    Machine(name="A100 80GB", flops=312e12, bytes_s=2039e9,
            source="NVIDIA A100 datasheet (SXM): 312 TFLOPS bf16, 2,039 GB/s"),
    Machine(name="H100", flops=989.4e12, bytes_s=3350e9,
            source="NVIDIA H100 datasheet (SXM): 1,979 TFLOPS bf16 sparse, 3.35 TB/s"),
)  # fmt: skip
_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "window_size": 112,
           "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip
_TEXT: Mapping[str, Mapping[str, int]] = {
    "3B": {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
           "intermediate_size": 11008, "vocab_size": 151936},
    "7B": {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
           "intermediate_size": 18944, "vocab_size": 152064},
}  # fmt: skip
SAMPLED_TILES = 100
"""Tiles of the sample archive that answers, instances and reading are averaged over."""
type Stopwatch = Callable[[Callable[[], object]], float]
"""Work → the seconds that it takes."""
_KERNELS = {"linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "conv2d", "convolution", "conv_transpose2d",
            "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
            "gelu", "silu", "relu", "layer_norm", "native_layer_norm"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a tile asks of a model, besides the model's size."""

    frame_px: int = 840
    text_tokens: int = 250
    """After the image; what precedes it is read once for all tiles."""
    answer_tokens: float = 200
    drawn: float = 1.0
    """Share of tiles that have an instance and go through the segmenter."""
    instances: float = 2.5
    rows: int = 64
    """Answers written at a time."""
    at_once: int = 8
    """Tiles encoded and read at a time."""
    bytes_per_number: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The least that one phase of a tile takes."""

    name: str
    flops: float
    bytes: float

    def seconds(self, machine: Machine) -> float:
        """On a machine that does one thing at its peak while the other is hidden behind it."""
        return max(self.flops / machine.flops, self.bytes / machine.bytes_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A segmenter's image encoder as stages of transformer blocks, and its mask decoder."""

    name: str
    stages: Sequence[tuple[int, int, int, Sequence[int]]]
    """(tokens, width, mlp ratio, context of each block in tokens)."""
    neck: float
    """Multiplications of what follows."""
    grid: int
    """Side of the embedding in tokens."""
    width: int
    """Channels of the embedding."""


def vit(name: str, *, width: int, depth: int, whole: int, grid: int = 64, window: int = 14, mlp: int = 4,
        out: int = 256) -> Encoder:  # fmt: skip
    """segment-anything's encoder: all blocks look at windows, `whole` of them at everything."""
    contexts = [grid**2] * whole + [window**2] * (depth - whole)
    return Encoder(name=name, stages=[(grid**2, width, mlp, contexts)], neck=grid**2 * (width * out + 9 * out**2),
                   grid=grid, width=out)  # fmt: skip


def hiera_small() -> Encoder:
    """SAM 2.1's small encoder at 1024 pixels: four stages of Hiera, three blocks of the third look at everything."""
    tokens = (256**2, 128**2, 64**2, 32**2)
    contexts = ([8**2], [4**2] * 2, [14**2] * 8 + [64**2] * 3, [7**2] * 2)
    stages = [(n, 96 * 2**i, 4, context) for i, (n, context) in enumerate(zip(tokens, contexts, strict=True))]
    neck = sum(n * width * 256 for n, width, *_ in stages)
    return Encoder(name="SAM 2.1 small", stages=stages, neck=neck, grid=64, width=256)


def prompter_phases(config: Qwen2_5_VLConfig, load: Load) -> Iterator[Phase]:
    """Vision, prefill and decode of one tile."""
    vision, text, size = config.vision_config, config.text_config, load.bytes_per_number
    patches, merge = (load.frame_px // vision.patch_size) ** 2, vision.spatial_merge_size**2
    window = (vision.window_size // vision.patch_size) ** 2
    h, inter = vision.hidden_size, vision.intermediate_size
    whole = len(vision.fullatt_block_indexes)
    per_patch = vision.depth * (4 * h * h + 3 * h * inter) + 3 * vision.temporal_patch_size * vision.patch_size**2 * h
    merger = (h * merge) ** 2 + h * merge * vision.out_hidden_size
    looks = 2 * h * (whole * patches + (vision.depth - whole) * min(window, patches))
    weights = per_patch + merger
    macs = patches * (per_patch + looks) + patches / merge * merger
    yield Phase(name="vision", flops=2 * macs, bytes=size * weights / load.at_once)
    c, layers = text.hidden_size, text.num_hidden_layers
    kv = 2 * text.num_key_value_heads * (c // text.num_attention_heads)
    weights = layers * (c * (2 * c + kv) + 3 * c * text.intermediate_size)
    head = c * text.vocab_size
    image = patches // merge
    read = image + load.text_tokens
    macs = read * (weights + layers * c * read) + head
    yield Phase(name="prefill", flops=2 * macs, bytes=size * (weights + head) / load.at_once)
    context = read + load.answer_tokens / 2
    macs = load.answer_tokens * (weights + head + 2 * layers * c * context)
    moved = load.answer_tokens * size * ((weights + head) / load.rows + layers * kv * context)
    yield Phase(name="decode", flops=2 * macs, bytes=moved)


def segmenter_phases(encoder: Encoder, load: Load) -> Iterator[Phase]:
    """Encoding a tile, and decoding its instances."""
    macs, weights = encoder.neck, 0.0
    for tokens, width, mlp, contexts in encoder.stages:
        block = (4 + 2 * mlp) * width**2
        macs += sum(tokens * (block + 2 * width * context) for context in contexts)
        weights += len(contexts) * block
    moved = load.bytes_per_number * weights / load.at_once
    yield Phase(name="encode", flops=2 * load.drawn * macs, bytes=load.drawn * moved)
    n, c = encoder.grid**2, encoder.width
    attention = n * c * c  # keys and values of the image for its tokens, or the image's queries and outputs
    upscaling = n * c * c + 4 * n * (c // 4) * (c // 8) * 4
    macs = load.instances * (5 * attention + upscaling + 16 * n * c // 8)
    yield Phase(name="masks", flops=2 * macs, bytes=load.instances * 4 * n * c * 4)


def config_of(size: str) -> Qwen2_5_VLConfig:
    """The published model's numbers."""
    vision = {**_VISION, "out_hidden_size": _TEXT[size]["hidden_size"]}
    return Qwen2_5_VLConfig(text_config=dict(_TEXT[size]), vision_config=vision)


def this_cpu(cores: int) -> Machine:
    """One core of this machine while `cores` of them do the same: large products, and copies.

    Cores that share a physical one, or its clock and memory, do less together than one after another.
    """
    torch.set_num_threads(1)

    def work() -> tuple[float, float]:
        square, large = torch.randn(1024, 1024), torch.randn(1 << 24)
        other = torch.empty_like(large)
        together.wait()
        product = _quickest(lambda: square @ square, repetitions=40)
        together.wait()
        return 2 * 1024**3 / product, 2 * large.nbytes / _quickest(lambda: other.copy_(large), repetitions=20)

    together = Barrier(cores)
    with ThreadPoolExecutor(cores) as pool:
        found = [one.result() for one in [pool.submit(work) for _ in range(cores)]]
    flops, bytes_s = (fmean(values) for values in zip(*found, strict=True))
    alone = "alone" if cores == 1 else f"while {cores} work"
    return Machine(name=f"one core {alone}", flops=flops, bytes_s=bytes_s, source="measured: float32 product, copy")


def _quickest(work: Callable[[], object], repetitions: int = 7, clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds; by default of the thread, which is what other programs disturb least."""
    times = []
    for _ in range(repetitions):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


class _Kernels(TorchDispatchMode):
    """Notes every product, attention, activation and norm that is computed, with what it was computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _KERNELS:
            self.seen.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _kernels_of(load: Load, together: Any) -> dict[str, float]:
    """Phase → seconds of its kernels alone, per tile, in a process of its own beside others that do the same."""
    models = Models.load(load_monitor("nd-wetlands").models, threads=1)
    together.wait()
    found = _prompter_seconds(models.prompter, load, _kernels_alone)
    together.wait()
    return {**found, **_segmenter_seconds(models.segmenter, load, _kernels_alone)}


def _kernels_together(load: Load, cores: int) -> dict[str, float]:
    """The same while `cores` processes work, averaged over them: an engine keeps all cores busy, too."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(cores, mp_context=context) as pool:
        together = manager.Barrier(cores)
        found = [one.result() for one in [pool.submit(_kernels_of, load, together) for _ in range(cores)]]
    return {phase: fmean(one[phase] for one in found) for phase in found[0]}


def _kernels_alone(work: Callable[[], object]) -> float:
    """Seconds of the thread that the kernels of `work` take, each repeated by itself."""
    with _Kernels() as kernels:
        work()
    if not kernels.seen:
        raise RuntimeError("No kernel was noticed: this PyTorch calls them otherwise.")
    return sum(_quickest(partial(func, *args, **kwargs)) for func, args, kwargs in kernels.seen)


def main() -> None:
    """Print ceilings, then measurements, then one JSON object."""
    options = _options()
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    console = Console(width=130, highlight=False)
    found: dict[str, Any] = {"ceiling_tiles_s": {}}
    load = Load(answer_tokens=options.answer_tokens, rows=options.rows)
    for size in _TEXT:
        for encoder in (hiera_small(), vit("SAM vit_h", width=1280, depth=32, whole=4)):
            phases = [*prompter_phases(config_of(size), load), *segmenter_phases(encoder, load)]
            name = f"{size} + {encoder.name}"
            found["ceiling_tiles_s"][name] = _ceilings(console, name, phases, GPUS)
    for machine in GPUS:
        console.print(f"{machine.name}: {machine.source}")
    found["pair"] = _bundled_pair(console)
    if options.measure and torch.cuda.is_available():
        found["measured"] = measure_full_size(options.measure, load)
    elif options.measure:
        console.print("No GPU is at hand: full-size models are not measured.")
    print(json.dumps(found))


def _ceilings(console: Console, name: str, phases: Sequence[Phase], machines: Sequence[Machine]) -> dict[str, float]:
    table = Table(title=f"{name}: a tile", box=None, title_justify="left")
    for column in ("", "GFLOP", "GB moved", *(f"{machine.name} ms" for machine in machines)):
        table.add_column(column, justify="right" if column else "left")
    for phase in phases:
        times = (f"{1000 * phase.seconds(machine):.2f}" for machine in machines)
        table.add_row(phase.name, f"{phase.flops / 1e9:.1f}", f"{phase.bytes / 1e9:.3f}", *times)
    rates = {machine.name: round(1 / sum(phase.seconds(machine) for phase in phases), 1) for machine in machines}
    table.add_row("tiles/s at most", "", "", *(f"{rate:.1f}" for rate in rates.values()))
    console.print(table)
    return rates


def _bundled_pair(console: Console) -> dict[str, Any]:
    """Each phase of the bundled pair on one core here, beside the least it could take; and what all cores could do."""
    models, cores = Models.load(load_monitor("nd-wetlands").models, threads=1), os.cpu_count() or 1
    machine, shared = this_cpu(1), this_cpu(cores)
    description = json.loads((resolve("segmenter", "bundled") / "think2seg.json").read_text())["architecture"]
    prompter: Any = models.prompter
    tiles, reading = _sample()
    load = _load_of(prompter, tiles)
    grid = description["image_px"] // description["patch_px"]
    encoder = vit("tiny", width=description["width"], depth=description["depth"], grid=grid,
                  whole=len(description["global_blocks"]), window=description["window"],
                  mlp=description["mlp_ratio"], out=description["prompt_width"])  # fmt: skip
    phases = {p.name: p for p in (*prompter_phases(prompter._model.config, load), *segmenter_phases(encoder, load))}
    measured = {**_prompter_seconds(prompter, load, _quickest), **_segmenter_seconds(models.segmenter, load, _quickest)}
    alone = _kernels_together(load, cores)
    asked = f"{load.answer_tokens:.0f} tokens and {load.instances:.1f} instances"
    table = Table(title=f"The bundled pair on one core here: a tile of {asked}", box=None, title_justify="left")
    for column in ("", "GFLOP", "GB moved", "least ms", "kernels, all cores busy, ms", "measured ms", "share"):
        table.add_column(column, justify="right" if column else "left")
    for name, phase in phases.items():
        least, took = phase.seconds(machine), measured[name]
        table.add_row(name, f"{phase.flops / 1e9:.2f}", f"{phase.bytes / 1e9:.3f}", f"{1000 * least:.1f}",
                      f"{1000 * alone[name]:.1f}", f"{1000 * took:.1f}", f"{least / took:.0%}")  # fmt: skip
    least, took = sum(phase.seconds(machine) for phase in phases.values()), sum(measured.values())
    kernels = sum(alone.values())
    table.add_row("all", "", "", f"{1000 * least:.1f}", f"{1000 * kernels:.1f}", f"{1000 * took:.1f}",
                  f"{least / took:.0%}")  # fmt: skip
    console.print(table)
    for one in (machine, shared):
        told = f"{one.flops / 1e9:.0f} GFLOP/s, {one.bytes_s / 1e9:.0f} GB/s"
        console.print(f"{one.name}: {told} ({one.source})")
    at_most = cores / sum(phase.seconds(shared) for phase in phases.values())
    console.print(f"All {cores} cores together: {at_most:.1f} such tiles/s at most, reading and writing not counted;")
    console.print(f"{cores / kernels:.1f} with PyTorch's own kernels and nothing between them;")
    console.print(f"{cores / (kernels + reading):.1f} with {1000 * reading:.1f} ms of reading a tile.")
    return {"least_ms": round(1000 * least, 1), "kernels_ms": round(1000 * kernels, 1),
            "measured_ms": round(1000 * took, 1), "share": round(least / took, 3),
            "tiles_s_at_most": round(at_most, 1), "tiles_s_of_kernels": round(cores / kernels, 1),
            "tiles_s_of_kernels_and_reading": round(cores / (kernels + reading), 1)}  # fmt: skip


def _sample() -> tuple[list[Any], float]:
    """Tiles that `engine.py` asks about, and the processor's seconds of reading and cutting one."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = jobs_of(SAMPLED_TILES, Path(folder))
        spec, cut, started = spec_of(Path(folder), 1, jobs[-1].step + 1), [], time.process_time()
        for job in jobs:
            imagery = read_block(job.acquisition, job.block, spec.grid, spec.archive, spec.region)
            cut += cut_tiles(imagery, spec.grid, job.block)
        seconds = (time.process_time() - started) / len(cut)
    return [rgb for _, rgb, quality in cut if ((quality & BLOCKING) == 0).any()], seconds


def _load_of(prompter: Any, tiles: Sequence[Any]) -> Load:
    """What the tiles ask of the bundled pair, averaged."""
    replies = prompter.ask(tiles, QUESTIONS[0])
    counts = [len(parse_answer(one.text, frame_px=prompter.frame_px, finish=one.finish).instances) for one in replies]
    return Load(frame_px=prompter.frame_px, text_tokens=len(prompter._script(QUESTIONS[0]).tail),
                answer_tokens=fmean(one.tokens for one in replies), drawn=fmean(count > 0 for count in counts),
                instances=fmean(counts), rows=16, at_once=1, bytes_per_number=4)  # fmt: skip


def _prompter_seconds(prompter: Any, load: Load, seconds: Stopwatch) -> dict[str, float]:
    """Seconds per tile of the prompter's phases, run by the engine's own code."""
    decoder, vision, script = prompter._decoder, prompter._vision, prompter._script("water bodies")
    frames = [prompter._frame(_noise(prompter.frame_px))] * load.at_once
    head, length = len(script.head), script.positions.shape[1]
    rope, read = decoder.rope(script.positions), length - len(script.tail)
    with torch.inference_mode():
        seen = vision(frames)
        scratch = decoder.cache(load.at_once, length)
        tail = decoder.embed(script.tail).expand(load.at_once, -1, -1)

        def prefill() -> None:
            decoder.extend(seen, rope[head:read], scratch, head, logits=False)
            decoder.extend(tail, rope[read:], scratch, read, logits=True)

        middle = length + round(load.answer_tokens / 2)
        cache = decoder.cache(load.rows, ceil((length + load.answer_tokens) / 32) * 32)
        lengths = torch.full((load.rows,), middle, device=decoder.device)
        position = decoder.rope(torch.full((3, load.rows), middle))
        step = seconds(lambda: decoder.step(lengths * 0, lengths, position, cache))
        return {
            "vision": seconds(lambda: vision(frames)) / load.at_once,
            "prefill": seconds(prefill) / load.at_once,
            "decode": step * load.answer_tokens / load.rows,
        }


def _segmenter_seconds(segmenter: Any, load: Load, seconds: Stopwatch) -> dict[str, float]:
    """Seconds per tile of the segmenter's phases."""
    tile, prompt = _noise(segmenter.image_px), Prompt(bbox=(20, 20, 90, 90), points=((40, 40), (60, 60)))
    one, nine = (seconds(lambda n=n: segmenter.draw([tile], [[prompt] * n])) for n in (1, 9))
    instance = (nine - one) / 8
    return {"encode": load.drawn * (one - instance), "masks": load.instances * instance}


def _noise(side: int) -> Any:
    return torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()


def measure_full_size(size: str, load: Load) -> dict[str, float]:
    """Tiles per second of the prompter's phases with random weights on the GPU at hand."""
    from think2seg.prompting.decoder import TextDecoder
    from think2seg.prompting.vision import VisionEncoder

    config = config_of(size)
    with torch.device("cuda"):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16).eval()
    processor = argparse.Namespace(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28])
    decoder, vision = TextDecoder(model), VisionEncoder(model, processor, load.frame_px)
    image = (load.frame_px // 28) ** 2
    positions = torch.arange(16 + image + load.text_tokens, device="cuda").expand(3, -1)
    tokens = torch.zeros(load.text_tokens, dtype=torch.long, device="cuda")
    script = argparse.Namespace(head=tokens[:16], tail=tokens, positions=positions)
    prompter = argparse.Namespace(_decoder=decoder, _vision=vision, _script=lambda _: script,
                                  _frame=lambda picture: picture, frame_px=load.frame_px)  # fmt: skip
    seconds = _prompter_seconds(prompter, load, partial(_quickest, clock=_gpu_clock))
    phases = {phase.name: phase for phase in prompter_phases(config, load)}
    name = torch.cuda.get_device_name()
    machine = next((gpu for gpu in GPUS if gpu.name.split()[-1] in name or gpu.name.split()[0] in name), GPUS[-1])
    shares = {phase: round(phases[phase].seconds(machine) / took, 3) for phase, took in seconds.items()}
    return {**{f"{phase}_ms": round(1000 * took, 2) for phase, took in seconds.items()},
            **{f"{phase}_share": share for phase, share in shares.items()}}  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=tuple(_TEXT), help="with a GPU: measure random weights of this size")
    parser.add_argument("--answer-tokens", type=int, default=200)
    parser.add_argument("--rows", type=int, default=64, help="answers written at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
