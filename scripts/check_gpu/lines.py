"""The lines of the check, in their order."""

from __future__ import annotations

from scripts.check_gpu.checking import Check

TRAINER = ("trl", "datasets")

CHECKS = (
    Check(
        name="product",
        about="a matrix product",
        module="product",
        needs=(),
        seconds=30,
        remedy="torch and the driver do not fit: pip install -r requirements.txt, or a torch built for this CUDA",
    ),
    Check(
        name="attention",
        about="fused attention against the definition",
        module="attention",
        needs=(),
        seconds=30,
        remedy="set attn_implementation: eager, and look for another torch",
    ),
    Check(
        name="training",
        about="trainings, resumed ones, adapters",
        module="training",
        needs=TRAINER,
        seconds=150,
        remedy="run python train/sft.py by itself and read docs/when_training_goes_wrong.md",
    ),
    Check(
        name="agreement",
        about="the same trials on CPU and device",
        module="agreement",
        needs=(),
        seconds=90,
        remedy="see whether engine: {name: transformers, batch_size: 1} answers",
    ),
    Check(
        name="memory",
        about="predicted and measured memory",
        module="memory",
        needs=(),
        seconds=90,
        remedy="set fewer rows at a time under gpus in the model's file",
    ),
    Check(
        name="speed",
        about="tokens a second",
        module="speed",
        needs=TRAINER,
        seconds=90,
        remedy="see with nvidia-smi whether something else runs on the GPU",
    ),
    Check(
        name="two_processes",
        about="two processes, two GPUs",
        module="two_processes",
        needs=TRAINER,
        seconds=90,
        remedy="train on one GPU (configs/accelerate/single_gpu.yaml); NCCL_DEBUG=INFO says what keeps two apart",
        by_name=True,
    ),
    Check(
        name="serving",
        about="vLLM beside transformers",
        module="serving",
        needs=("vllm", "xgrammar"),
        seconds=150,
        remedy="measure with engine: {name: transformers}",
        by_name=True,
    ),
)
