"""The launch configurations through accelerate's own parser, to the environment that a training process would see."""

import os
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.distributed.fsdp import StateDictType

from support import ROOT

FOLDER = ROOT / "configs" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


def launch_arguments(name: str, *more: str) -> Any:
    command = ["--config_file", str(FOLDER / f"{name}.yaml"), *more, "train/sft.py", "--config", "x.yaml"]
    arguments = _validate_launch_command(launch_command_parser().parse_args(command))[0]
    arguments.deepspeed_fields_from_accelerate_config = ""  # set by `launch_command` itself, just before it starts
    return arguments


def test_every_way_of_launching_is_there():
    assert {p.stem for p in FILES} == {"cpu", "cpu_ddp", "single_gpu", "ddp", "fsdp2", "zero3"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_accelerate_reads_it(path: Path):
    """Unknown keys raise there."""
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert config.num_machines == 1, "the number of machines comes from the command line (SLURM)"
    assert config.mixed_precision == ("no" if path.stem.startswith("cpu") else "bf16")


def test_fsdp2_writes_a_full_state_dict(monkeypatch: pytest.MonkeyPatch):
    environment = prepare_multi_gpu_env(launch_arguments("fsdp2"))
    for name in [n for n in os.environ if n.startswith("FSDP_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert plugin.reshard_after_forward is True and plugin.cpu_ram_efficient_loading
    monkeypatch.delenv("FSDP_STATE_DICT_TYPE")
    assert FullyShardedDataParallelPlugin().state_dict_type == StateDictType.SHARDED_STATE_DICT, "why the file says it"


def test_zero3_splits_the_base_and_gathers_the_adapter():
    environment = prepare_deepspeed_cmd_env(launch_arguments("zero3"))[1]
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_several_machines_by_the_variables_of_slurm(name: str):
    more = ["--num_machines", "2", "--machine_rank", "1", "--num_processes", "8"]
    arguments = launch_arguments(name, *more, "--main_process_ip", "node1", "--main_process_port", "29500")
    if name == "zero3":
        assert prepare_deepspeed_cmd_env(arguments)[0] is None, "torchrun on each machine, no second launcher"
    else:
        prepare_multi_gpu_env(arguments)
    assert (arguments.nproc_per_node, arguments.nnodes, arguments.node_rank) == ("4", "2", 1)
    assert arguments.rdzv_endpoint == "node1:29500"
