"""Workloads of every task, small enough to run in a fraction of a second."""

from __future__ import annotations

HOSTILE = "</script><script>alert(1)</script><b>&\"' [bold]x[/bold]"

TASKS = {
    "prefill": "task: prefill\nmodel: gpt2\nlayers: 3\nbatch: 2\nprompt: 256\n",
    "generate": (
        "task: generate\nmodel: gpt2\nlayers: 3\nbatch: 2\nprompt: 128\ngenerate: 8\nparallelism: {tensor: 2}\n"
    ),
    "decode": "task: decode\nmodel: gpt2\nlayers: 3\nbatch: 1\nprompt: 64\ngenerate: 4\n",
    "eager": "task: decode\nmodel: gpt2\nlayers: 3\nbatch: 1\nprompt: 64\ngenerate: 2\nengine: eager-pytorch\n",
    "isolated": "task: decode\nmodel: gpt2\nlayers: 3\nbatch: 1\nprompt: 64\ngenerate: 2\nengine: eager-synchronised\n",
    "train": (
        "task: training_step\nmodel: gpt2\nlayers: 3\nbatch: 8\nprompt: 32\n"
        "parallelism: {tensor: 2, pipeline: 2, data: 2, microbatches: 2}\n"
    ),
    "operators": (
        "task: operators\noperators:\n"
        "- {name: big, kind: linear, dimensions: {m: 512, n: 1024, k: 1024, dtype: fp16}}\n"
        "- name: block\n  repeat: 3\n  operators:\n"
        "  - {name: soft, kind: softmax, dimensions: {rows: 64, cols: 1024, dtype: fp16}}\n"
    ),
}
KINDS = tuple(TASKS)

DISTINCT = ("prefill", "decode", "generate", "train", "operators")
"""One of each task; the others differ in how kernels are launched."""
