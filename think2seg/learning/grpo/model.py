"""The prompter in training: loaded from a weights folder, configured for TRL, and written as such a folder again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import peft
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLModel,
)
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from think2seg.config import LocalPrompter
from think2seg.errors import ModelError, TrainingError
from think2seg.learning.grpo.packing import Packed
from think2seg.learning.grpo.rollouts import Rollouts
from think2seg.learning.precision import in_bfloat16
from think2seg.learning.settings import GrpoSettings, LoraSettings
from think2seg.prompting import Template, template_for
from think2seg.prompting.batch import Limits
from think2seg.prompting.folder import PrompterDescription, forget_calibration, read_description
from think2seg.registry import prompter_weights, share_weights
from think2seg.segmentation.devices import load_whole

_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "README.md")


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights that a reinforcement starts from."""

    folder: Path
    digest: str
    description: PrompterDescription
    template: Template

    @classmethod
    def of(cls, settings: GrpoSettings) -> Self:
        """Find them; raises ModelError when there are none."""
        wanted = LocalPrompter(path=settings.prompter, template=settings.template)
        weights = prompter_weights(wanted)
        assert weights.path is not None
        return cls(
            folder=weights.path,
            digest=weights.digest,
            description=read_description(weights.path),
            template=template_for(wanted, weights.path),
        )

    def load(self, settings: GrpoSettings) -> tuple[Any, Any]:
        """Model and processor, on the CPU.

        All weights train in float32, under autocast where bfloat16 is asked for; behind adapters they are kept in
        bfloat16. Raises ModelError when the folder holds no prompter.
        """
        dtype = torch.bfloat16 if settings.lora and in_bfloat16(settings.bfloat16) else torch.float32
        try:
            processor = AutoProcessor.from_pretrained(self.folder, local_files_only=True, padding_side="left")
            model = load_whole(Qwen2_5_VLForConditionalGeneration, self.folder, dtype=dtype, attn_implementation="sdpa")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"{self.folder} cannot be loaded as a prompter: {error}",
                "Allowed is a transformers folder of a Qwen2.5-VL model with its processor.",
                "Correct the key prompter of the training file.",
            ) from error
        return model, processor

    @property
    def dtype(self) -> torch.dtype:
        """What the weights lie on disk as."""
        told = json.loads((self.folder / "config.json").read_bytes())
        return getattr(torch, told.get("dtype") or told.get("torch_dtype") or "float32")  # type: ignore[no-any-return]


class PatchProduct(Qwen2_5_VisionPatchEmbed):  # type: ignore[misc]
    """transformers' embedding of patches as one matrix product: patches do not overlap, so that is what it comes to.

    As a convolution in three dimensions it was more than half of a step of the bundled prompter on a CPU.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(patches, width) of (patches, 3 · times · patch²)."""
        return linear(hidden_states.to(self.proj.weight.dtype), self.proj.weight.flatten(1))


class DistinctImages(Qwen2_5_VisionTransformerPretrainedModel):  # type: ignore[misc]
    """transformers' vision tower, which looks at an image once however many answers of a batch are about it.

    Every answer to a question brings a copy of the question's image. Values and gradients are the same.
    """

    def forward(self, hidden_states: Tensor, grid_thw: Tensor, **options: Any) -> Any:
        """As its base; images of different sizes are looked at as they come."""
        if not (grid_thw == grid_thw[0]).all():
            return super().forward(hidden_states, grid_thw=grid_thw, **options)
        images, which = torch.unique(hidden_states.view(len(grid_thw), -1), dim=0, return_inverse=True)
        patches = images.view(-1, hidden_states.shape[-1])
        seen = super().forward(patches, grid_thw=grid_thw[: len(images)], **options)
        for name, values in tuple(seen.items()):
            seen[name] = values.unflatten(0, (len(images), -1))[which].flatten(0, 1)
        return seen


_TEACHES = 1e-6
"""Advantage from which an answer moves the weights."""
_CHEAPER = {
    Qwen2_5_VisionPatchEmbed: PatchProduct,
    Qwen2_5_VisionTransformerPretrainedModel: DistinctImages,
}
"""What transformers has → what computes the same in less time."""


class MaskTrainer(GRPOTrainer):
    """TRL's trainer, which reads an image and a prompt once for all answers, and resumes with a checkpoint's weights.

    Qwen2.5-VL is saved under the key names of its first release. transformers translates them back in
    `from_pretrained` but not where its Trainer resumes: there nearly every weight is *missing*, which is a warning, and
    training would go on from the first weights with the optimiser of later ones.
    """

    def __init__(self, *, frame_px: int | None = None, **options: Any) -> None:
        """As its base; where `frame_px` is given, answers are sampled by `Rollouts`."""
        super().__init__(**options)
        for model in (self.model, self.ref_model):
            for module in () if model is None else model.modules():
                if type(module) in _CHEAPER:
                    module.__class__ = _CHEAPER[type(module)]
        self._rollouts: Rollouts | None = None
        if frame_px is not None:
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                raise TrainingError(
                    "rollouts.engine: local does not run where weights are divided among processes.",
                    "Every process samples from the whole weights.",
                    "Give rollouts.engine: vllm, vllm-server or transformers.",
                )
            self._rollouts = Rollouts(
                self.accelerator.unwrap_model(self.model),
                self.processing_class,
                Limits(
                    ends=frozenset(self.eos_token_ids), max_new_tokens=self.args.max_completion_length, at_tag=False
                ),
                temperature=self.temperature,
                frame_px=frame_px,
            )

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *rest: Any, **options: Any) -> Any:
        if self._rollouts is None:
            return super()._generate_single_turn(prompt_ids, images, *rest, **options)  # type: ignore[no-untyped-call]
        return self._rollouts.sample(prompt_ids, [image for (image,) in images]), None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """(n, answer) log-probabilities of the answers' tokens and, if asked for, entropies; 0 where they are padding.

        Every row has one image, and all images are of the prompter's frame size.
        """
        images = {name: inputs[name] for name in ("image_grid_thw", "mm_token_type_ids")}
        images["pixel_values"] = inputs["pixel_values"].reshape(len(input_ids), -1, inputs["pixel_values"].shape[-1])
        prompts = _prompts(images["pixel_values"], input_ids[:, :-logits_to_keep])
        parts = _parts(prompts, batch_size or len(input_ids))
        log_probs, entropies = [], []
        for rows in parts:
            part = {name: values[rows] for name, values in images.items()}
            pack, outputs = self._packed(
                model, prompts[rows], input_ids[rows], attention_mask[rows], logits_to_keep, **part
            )
            log_probs.append(pack.unpacked(outputs.log_probs))
            if compute_entropy:
                entropies.append(pack.unpacked(outputs.entropy))
        order = torch.cat(parts).argsort()
        return torch.cat(log_probs)[order], torch.cat(entropies)[order] if compute_entropy else None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """As its base, without the answers that teach nothing, such as all to a question that earn the same.

        What is left out is the pull of these answers towards the first weights; each step's KL is that of the others.
        """
        teaches = inputs["advantages"].abs() > _TEACHES
        if teaches.any():
            inputs = _rows_of(inputs, teaches)
        return super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]

    def _packed(
        self,
        model: Any,
        prompts: Tensor,
        tokens: Tensor,
        attention: Tensor,
        answer: int,
        *,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        mm_token_type_ids: Tensor,
    ) -> tuple[Packed, Any]:
        """Where rows that fit into memory together come to lie, and what the model says of them there."""
        pack = Packed.of(prompts.cpu(), attention.cpu(), answer=answer).to(tokens.device)
        inner = next(module for module in model.modules() if isinstance(module, Qwen2_5_VLModel))
        positions, _ = inner.get_rope_index(
            tokens, mm_token_type_ids=mm_token_type_ids, image_grid_thw=image_grid_thw, attention_mask=attention
        )
        with self.accelerator.autocast():
            outputs = model(
                input_ids=pack.packed(tokens, padding=self._tokenizer.pad_token_id),
                attention_mask=pack.visible(),
                position_ids=pack.packed(positions, padding=0),
                pixel_values=pixel_values[pack.first].flatten(0, 1),
                image_grid_thw=image_grid_thw[pack.first],
                shift_labels=pack.labels(tokens),
                fused_lm_head=True,
            )
        return pack, outputs

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, peft.PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = load_whole(Qwen2_5_VLForConditionalGeneration, Path(resume_from_checkpoint), dtype=torch.float32)
        (model or self.model).load_state_dict(saved.state_dict())


def _prompts(pixel_values: Tensor, tokens: Tensor) -> Tensor:
    """(n,) numbers of the rows' prompts, from their images (n, patches, values) and tokens (n, prompt)."""
    _, images = torch.unique(pixel_values.flatten(1), dim=0, return_inverse=True)
    prompts: Tensor
    _, prompts = torch.unique(torch.cat([images[:, None], tokens], dim=1), dim=0, return_inverse=True)
    return prompts


def _parts(prompts: Tensor, size: int) -> list[Tensor]:
    """Numbers of the rows that go through the model together.

    Packed answers of many questions are padded to the longest, which costs a CPU more than what it gains by rows beside
    each other.
    """
    if prompts.device.type == "cpu":
        return [(prompts == prompt).nonzero()[:, 0] for prompt in range(int(prompts.max()) + 1)]
    n, device = len(prompts), prompts.device
    return [torch.arange(start, min(start + size, n), device=device) for start in range(0, n, size)]


def _rows_of(inputs: dict[str, Any], chosen: Tensor) -> dict[str, Any]:
    """Some of the rows of what TRL gathers for a step; chosen: (n,) bool. Every row has one image of one size."""
    n, rows = len(chosen), chosen.nonzero()[:, 0]
    found = {}
    for name, values in inputs.items():
        if name == "pixel_values":
            found[name] = values.view(n, -1, values.shape[-1])[rows].flatten(0, 1)
        elif isinstance(values, list):
            found[name] = [values[row] for row in rows.tolist()]
        else:
            found[name] = values[rows] if isinstance(values, Tensor) and values.dim() else values
    return found


def lora_config(settings: LoraSettings) -> peft.LoraConfig:
    """Adapters as TRL takes them."""
    modules = settings.modules if isinstance(settings.modules, str) else list(settings.modules)
    return peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules,
        task_type="CAUSAL_LM",
    )


def grpo_config(settings: GrpoSettings, folder: Path, *, max_new_tokens: int) -> GRPOConfig:
    """TRL's view of a training file; joins the processes of a training.

    folder: where checkpoints go. max_new_tokens: where the file does not say.
    """
    update, rollouts = settings.update, settings.rollouts
    return GRPOConfig(
        output_dir=str(folder),
        seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=in_bfloat16(settings.bfloat16),
        gradient_checkpointing=settings.gradient_checkpointing,
        num_train_epochs=settings.epochs or 1,
        per_device_train_batch_size=update.answers,
        gradient_accumulation_steps=update.passes,
        learning_rate=update.rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": update.floor},
        warmup_steps=update.rise,
        weight_decay=update.weight_decay,
        max_grad_norm=update.clip,
        beta=update.kl,
        scale_rewards=update.scale,
        num_generations=rollouts.per_question,
        temperature=rollouts.temperature,
        max_completion_length=rollouts.max_new_tokens or max_new_tokens,
        use_vllm=rollouts.engine.startswith("vllm"),
        vllm_mode="server" if rollouts.engine == "vllm-server" else "colocate",
        vllm_gpu_memory_utilization=rollouts.vllm_memory_share,
        vllm_server_base_url=rollouts.vllm_server if rollouts.engine == "vllm-server" else None,
        shuffle_dataset=settings.data.earthreason is not None,
        dataloader_num_workers=0,
        logging_steps=1,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def export_prompter(model: Any, start: Start, target: Path, *, card: str) -> None:
    """Write a weights folder that the production classes load, in the precision that training started from.

    Adapters are merged; everything but the weights is that of the folder training started from, except its presence
    calibration, which was fitted to other weights. The folder appears whole or not at all.
    """
    if isinstance(model, peft.PeftModel):
        model = model.merge_and_unload()
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(start.folder, draft, ignore=shutil.ignore_patterns(*_WEIGHT_FILES))
    kept = {path.name: path.read_bytes() for path in draft.glob("*config.json")}
    model.to(start.dtype).save_pretrained(draft)
    for name, content in kept.items():
        (draft / name).write_bytes(content)
    share_weights(draft)
    forget_calibration(draft)
    (draft / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
