"""Hugging Face encoders → fields of an ``ArchitectureSpec``: BERT and ViT.

``architectures`` in the configuration says which head there is; the head that predicts masked words is left out.
"""

from __future__ import annotations

from .config_reader import ConfigReader
from .folding import fold
from .hf_transformers import Fields, attention, mlp, uniform


def bert(k: ConfigReader) -> Fields:
    """BERT: word, position and segment tables, a norm after each residual, a pooler on the first token."""
    fields = _encoder(k, qkv_bias=True) | {
        "vocab": k.integer("vocab_size"),
        "segments": k.integer("type_vocab_size", default=2),
        "embedding_norm": True,
        "position": "learned",
        "max_positions": k.integer("max_position_embeddings", default=512),
        "residual": "post_norm",
        "final_norm": False,
        "pooler": True,
    }
    return fields | _head(k, "ForSequenceClassification")


def vit(k: ConfigReader) -> Fields:
    """ViT: patches, a class token, a norm before each part; a pooler where there is no classifier."""
    side, patch = k.integer("image_size", default=224), k.integer("patch_size", default=16)
    image = {"height": side, "width": side, "patch": patch, "channels": k.integer("num_channels", default=3)}
    head = _head(k, "ForImageClassification")
    pooled = {} if head["head"] == "classifier" else {"pooler": True}
    return _encoder(k, qkv_bias=k.boolean("qkv_bias", True)) | {"patches": image, "position": "none"} | head | pooled


def _encoder(k: ConfigReader, *, qkv_bias: bool) -> Fields:
    mixer = attention(k, bias=qkv_bias, out_bias=True) | {"causal": False}
    ffn = mlp(k.integer("intermediate_size"), k.activation("hidden_act", "gelu"), gated=False, bias=True)
    layers = fold(uniform(k, mixer, ffn))
    return {"hidden": k.integer("hidden_size"), "norm": {"kind": "layernorm"}, "layers": layers}


def _head(k: ConfigReader, ending: str) -> Fields:
    """The classifier, where the configuration names a class with it; its outputs are the labels, two if none."""
    if not any(name.endswith(ending) for name in k.sequence("architectures", str, [])):
        return {"head": "none"}
    labels = k.labels()
    return {"head": "classifier", "classes": labels}
