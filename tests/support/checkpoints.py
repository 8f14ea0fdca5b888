"""Miniature checkpoints of the real classes with random weights, in the layouts that others publish."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from support.weights import CHAT_TEMPLATE
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Sam2ImageProcessor,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
CORPUS = ['<think>two lakes</think> <answer>```json[{"bbox_2d": [12, 34, 56, 78]}]```</answer>', "[]", "[{", "where"]


def published_prompter(folder: Path, seed: int = 0) -> Path:
    """A two-layer Qwen2.5-VL laid out like the published 3B weights, with no ``think2seg.json``.

    As transformers 4.49 wrote them: shards with the key names of that time, embeddings tied, one flat configuration,
    the chat template in a JSON file, and the tokenizer in all its files.
    """
    tokenizer = byte_level_tokenizer()
    model = published_model(seed)
    folder.mkdir(parents=True, exist_ok=True)
    _save_shards(
        folder, {_old_name(key): value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    )
    _write(folder / "config.json", _flat_config(model.config))
    _write(
        folder / "generation_config.json",
        {
            "bos_token_id": model.config.text_config.bos_token_id,
            "do_sample": True,
            "eos_token_id": [tokenizer.eos_token_id, tokenizer.pad_token_id],
            "pad_token_id": tokenizer.pad_token_id,
            "repetition_penalty": 1.05,
            "temperature": 1e-06,
            "transformers_version": "4.49.0",
        },
    )
    tokenizer.save_pretrained(folder)
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    _write(folder / "vocab.json", core["vocab"])
    (folder / "merges.txt").write_text("".join(f"{' '.join(pair)}\n" for pair in core["merges"]), encoding="utf-8")
    _write(folder / "added_tokens.json", {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL})
    _write(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    _write(folder / "preprocessor_config.json", _IMAGE_PROCESSOR)
    return folder


def published_model(seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """The model whose weights `published_prompter` lays out."""
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(_config(byte_level_tokenizer()))


def _save_shards(folder: Path, state: dict[str, torch.Tensor], count: int = 2) -> None:
    names = sorted(state)
    files = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    where = {name: files[number * count // len(names)] for number, name in enumerate(names)}
    for file in files:
        shard = {name: state[name].contiguous() for name in names if where[name] == file}
        save_file(shard, folder / file, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in state.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def _old_name(key: str) -> str:
    return (
        key.removeprefix("model.") if key.startswith("model.visual.") else key.replace("model.language_model", "model")
    )


def _flat_config(config: Qwen2_5_VLConfig) -> dict[str, object]:
    """The configuration as it was written before its text part had a section of its own."""
    plain = config.to_dict()
    text = plain.pop("text_config")
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = {"type": "mrope", **rope}
    for part in (plain, text, plain["vision_config"]):
        part.pop("dtype", None)
    plain["vision_config"]["model_type"] = "qwen2_5_vl"
    about = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "torch_dtype": "float32"}
    return {**text, **plain, **about, "tie_word_embeddings": True, "transformers_version": "4.49.0"}


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's special tokens, merged eagerly."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(CORPUS * 9, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 5,  # padded, as published vocabularies are
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "window_size": 112,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


_IMAGE_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def published_sam2(folder: Path, seed: int = 0, image_px: int = 128) -> Path:
    """A SAM 2.1 of five blocks laid out like ``facebook/sam2.1-hiera-small``: a video model with its processor."""
    torch.manual_seed(seed)
    Sam2VideoModel(_sam2_config(image_px)).save_pretrained(folder)
    images = Sam2ImageProcessor(
        size={"height": image_px, "width": image_px}, mask_size={"height": image_px // 4, "width": image_px // 4}
    )
    Sam2Processor(images).save_pretrained(folder)
    return folder


def _sam2_config(image_px: int) -> Sam2VideoConfig:
    sides = [image_px // 4, image_px // 8, image_px // 16]
    return Sam2VideoConfig(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [image_px, image_px],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 4],
                "window_size_per_stage": [8, 4, 4, 2],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[side, side] for side in sides],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": image_px},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2},
        image_size=image_px,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[sides[-1], sides[-1]],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
    )
