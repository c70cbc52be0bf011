"""Small models of transformers, two layers each, and their own initialisation to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

SIZES = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 12}
VISION = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}


def _text(kind: str, config: str, **more: Any) -> Callable[[], Any]:
    return lambda: getattr(hf, kind)(getattr(hf, config)(**{**SIZES, **more}))


def _clip() -> Any:
    text = {**SIZES, "projection_dim": 32}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config={**VISION, "projection_dim": 32}))


def _sam() -> Any:
    vision = {**VISION, "output_channels": 24, "mlp_dim": 96, "num_pos_feats": 12, "global_attn_indexes": [1]}
    decoder = {"hidden_size": 24, "mlp_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 24}
    prompt = {"hidden_size": 24, "image_size": 32, "patch_size": 8, "mask_input_channels": 8}
    return hf.SamModel(hf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))


def _wav2vec2() -> Any:
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    conv = {"conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    conv |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**sizes, num_attention_heads=4, **conv))


MODELS: dict[str, Callable[[], Any]] = {
    "LlamaForCausalLM": _text("LlamaForCausalLM", "LlamaConfig"),
    "LlamaForCausalLM tied": _text("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=True),
    "MixtralForCausalLM": _text("MixtralForCausalLM", "MixtralConfig", num_local_experts=4),
    "Qwen3MoeForCausalLM": _text("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **EXPERTS),
    "Qwen3NextForCausalLM": _text(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        **EXPERTS,
        layer_types=["linear_attention", "full_attention"],
        shared_expert_intermediate_size=40,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
    ),
    "GPT2LMHeadModel": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=211, n_positions=64, n_embd=48, n_layer=2, n_head=4)
    ),
    "BertForMaskedLM": _text("BertForMaskedLM", "BertConfig"),
    "T5ForConditionalGeneration": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=211, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4)
    ),
    "WhisperForConditionalGeneration": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            vocab_size=211,
            d_model=48,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=96,
            decoder_ffn_dim=96,
            max_source_positions=50,
            max_target_positions=40,
            num_mel_bins=20,
            pad_token_id=0,
        )
    ),
    "ViTForImageClassification": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VISION)),
    "MambaForCausalLM": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=211, hidden_size=48, num_hidden_layers=2, state_size=8)
    ),
    "Mamba2ForCausalLM": lambda: hf.Mamba2ForCausalLM(
        hf.Mamba2Config(vocab_size=211, hidden_size=48, num_hidden_layers=2, state_size=8, num_heads=8, head_dim=12)
    ),
    "Gemma2ForCausalLM": _text("Gemma2ForCausalLM", "Gemma2Config", head_dim=12),
    "Gemma3ForCausalLM": _text("Gemma3ForCausalLM", "Gemma3TextConfig", head_dim=12),
    "DeepseekV3ForCausalLM": _text(
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        moe_intermediate_size=40,
        kv_lora_rank=16,
        q_lora_rank=24,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
    ),
    "GptOssForCausalLM": _text("GptOssForCausalLM", "GptOssConfig", head_dim=12, num_local_experts=4),
    "CLIPModel": _clip,
    "Wav2Vec2ForCTC": _wav2vec2,
    "Dinov2Model": lambda: hf.Dinov2Model(hf.Dinov2Config(**{**VISION, "mlp_ratio": 2})),
    "SwinModel": lambda: hf.SwinModel(
        hf.SwinConfig(image_size=32, patch_size=4, embed_dim=24, depths=[1, 1], num_heads=[2, 4], window_size=4)
    ),
    "ResNetModel": lambda: hf.ResNetModel(
        hf.ResNetConfig(embedding_size=16, hidden_sizes=[24, 48], depths=[1, 1], layer_type="basic")
    ),
    "FalconForCausalLM": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(vocab_size=211, hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
    ),
    "BloomForCausalLM": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=211, hidden_size=48, n_layer=2, n_head=4)
    ),
    "GPTNeoXForCausalLM": _text("GPTNeoXForCausalLM", "GPTNeoXConfig"),
    "SamModel": _sam,
}

RECURRENT = {"vocab_size": 211, "hidden_size": 48, "num_hidden_layers": 2}
OTHERS: dict[str, Callable[[], Any]] = {
    "JambaForCausalLM": _text(
        "JambaForCausalLM",
        "JambaConfig",
        num_experts=2,
        mamba_d_state=8,
        mamba_dt_rank=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
    ),
    "RwkvForCausalLM": lambda: hf.RwkvForCausalLM(hf.RwkvConfig(**RECURRENT, attention_hidden_size=48)),
    "RecurrentGemmaForCausalLM": lambda: hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(**{**RECURRENT, "num_hidden_layers": 3}, intermediate_size=96, num_attention_heads=4)
    ),
    "DebertaV2ForMaskedLM": _text(
        "DebertaV2ForMaskedLM", "DebertaV2Config", relative_attention=True, pos_att_type="p2c|c2p"
    ),
    "XLNetLMHeadModel": lambda: hf.XLNetLMHeadModel(
        hf.XLNetConfig(vocab_size=211, d_model=48, n_layer=2, n_head=4, d_inner=96)
    ),
    "ViTMAEForPreTraining": lambda: hf.ViTMAEForPreTraining(
        hf.ViTMAEConfig(
            **VISION,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=48,
        )
    ),
    "BeitModel": lambda: hf.BeitModel(hf.BeitConfig(**VISION, use_relative_position_bias=True, use_mask_token=True)),
}
"""Of other kinds: recurrences, relative positions, tables that the constructor computes."""
