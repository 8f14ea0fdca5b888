"""A loop in the style of the published evaluation, for `engine.py` and `reward.py` to be compared with."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning

from think2seg.engine import RunSpec
from think2seg.imagery import BLOCKING, cut_tiles, read_block
from think2seg.plan import BlockJob
from think2seg.prompting import parse_answer
from think2seg.registry import resolve

if TYPE_CHECKING:
    from segment_anything import SamPredictor

    from think2seg.prompting.folder import PrompterDescription

MONITOR = "nd-wetlands"
QUESTIONS = ("water bodies", "open water")
BATCH = 20

type Mask = npt.NDArray[np.bool_]
type Key = tuple[str, str]
"""Acquisition and tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one process took for its part."""

    wall_s: float
    cpu_s: float
    busy_s: float = 0.0


class ReferenceWorker:
    """Lives in a process of its own; may use all cores."""

    said: Any
    template: Any
    processor: Any
    model: Any
    predictor: Any
    results: dict[Key, tuple[str, Mask]]

    @classmethod
    def start(cls) -> None:
        """Load the pair with the libraries alone."""
        import torch
        from segment_anything import SamPredictor
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
        from transformers.utils.logging import disable_progress_bar

        from think2seg.prompting.folder import folder_template, read_description
        from think2seg.segmentation.architecture import load_sam_folder

        disable_progress_bar()
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
        folder = resolve("prompter", "champion")
        cls.said = read_description(folder)
        cls.template = folder_template(folder, cls.said, None)
        cls.processor = AutoProcessor.from_pretrained(folder)
        cls.processor.tokenizer.padding_side = "left"
        cls.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        sam = load_sam_folder(resolve("segmenter", "bundled"))
        cls.predictor = SamPredictor(sam)
        cls.run_over([np.full((192, 192, 3), 90, np.uint8)])

    @classmethod
    def run(cls, jobs: Sequence[BlockJob], spec: RunSpec, threads: int) -> Took:
        """Answer all tiles, then draw all instances."""
        import torch

        torch.set_num_threads(threads)
        started, cpu = time.perf_counter(), time.process_time()
        keys, tiles = [], []
        for job in jobs:
            imagery = read_block(job.acquisition, job.block, spec.grid, spec.archive, spec.region)
            for tile, rgb, quality in cut_tiles(imagery, spec.grid, job.block):
                halo, core = spec.grid.halo_px, spec.grid.core_px
                if ((quality[halo : halo + core, halo : halo + core] & BLOCKING) == 0).any():
                    keys.append((job.acquisition.id, tile.id))
                    tiles.append(rgb)
        cls.results = dict(zip(keys, cls.run_over(tiles), strict=True))
        return Took(wall_s=time.perf_counter() - started, cpu_s=time.process_time() - cpu)

    @classmethod
    def run_over(cls, tiles: Sequence[npt.NDArray[np.uint8]]) -> list[tuple[str, Mask]]:
        """Text and mask of every tile."""
        texts = [text for start in range(0, len(tiles), BATCH) for text in cls.answer(tiles[start : start + BATCH])]
        return [(text, draw(cls.predictor, cls.said, tile, text)) for tile, text in zip(tiles, texts, strict=True)]

    @classmethod
    def answer(cls, tiles: Sequence[npt.NDArray[np.uint8]]) -> list[str]:
        """Plain `generate` over one batch."""
        import torch
        from PIL import Image

        side, said = cls.said.frame_px, cls.said
        messages = cls.template.messages(QUESTIONS[0])
        text = cls.processor.apply_chat_template(messages, add_generation_prompt=True)
        frames = [Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS) for tile in tiles]
        inputs = cls.processor(text=[text] * len(frames), images=frames, padding=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = cls.model.generate(**inputs, do_sample=False, max_new_tokens=said.max_new_tokens)
        answers: list[str] = cls.processor.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers

    @classmethod
    def told(cls) -> dict[Key, tuple[str, Mask]]:
        """Texts and masks of the last run."""
        return cls.results


def draw(predictor: SamPredictor, said: PrompterDescription, tile: npt.NDArray[np.uint8], text: str) -> Mask:
    """The union of all instances of an answer, the image encoded once and the instances decoded one by one.

    Masks are enlarged to the tile in one step, as ours are. The predictor's own two, by way of its frame, move one
    pixel in 600 across the threshold, which would hide a real difference.
    """
    import torch
    from torch.nn.functional import interpolate

    sam, place = predictor.model, predictor.transform
    answer = parse_answer(text, frame_px=said.frame_px, finish="stop", unknown_reasoning=said.unknown_reasoning)
    union = np.zeros(tile.shape[:2], np.bool_)
    if answer.instances:
        predictor.set_image(tile)
    for prompt in answer.scaled(len(tile) / said.frame_px).instances:
        points, boxes = None, None
        if prompt.points:
            at = place.apply_coords(np.array(prompt.points), tile.shape[:2])
            points = torch.as_tensor(at, dtype=torch.float32)[None], torch.ones(1, len(at))
        if prompt.bbox:
            boxes = torch.as_tensor(place.apply_boxes(np.array(prompt.bbox), tile.shape[:2]), dtype=torch.float32)
        with torch.inference_mode():
            sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
            low, _ = sam.mask_decoder(
                image_embeddings=predictor.features,
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            union |= (interpolate(low, tile.shape[:2], mode="bilinear")[0, 0] > sam.mask_threshold).numpy()
    return union
