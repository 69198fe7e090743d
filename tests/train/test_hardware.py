import accelerate
import pytest
import torch

from task.errors import InputError
from train import hardware
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig, fit_to_hardware
from train.hardware import FSDP2_SINCE, check_quantization, check_sharding, settings_for, split_batch

TABLE = {
    24: {"per_device_train_batch_size": 2, "gradient_checkpointing": True},
    40: {"per_device_train_batch_size": 4},
    80: {"per_device_train_batch_size": 16},
}


@pytest.mark.parametrize(("memory", "rows"), [(23.7, 2), (25.8, 2), (39.0, 4), (42.3, 4), (47.5, 4), (85.0, 16)])
def test_the_entry_of_the_largest_memory_that_the_gpu_has(memory: float, rows: int):
    assert settings_for(TABLE, memory)["per_device_train_batch_size"] == rows


def test_a_gpu_below_the_table_is_one_clear_line():
    with pytest.raises(InputError, match="begin at 24 GB and this GPU has 16 GB"):
        settings_for(TABLE, 16.1)


@pytest.mark.parametrize("effective", [1, 6, 8, 16, 48])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_a_batch_is_split_exactly_or_refused(effective: int, processes: int, rows: int):
    if effective % processes:
        with pytest.raises(InputError, match="cannot share it evenly"):
            split_batch(effective, rows, processes)
        return
    at_a_time, steps = split_batch(effective, rows, processes)
    assert at_a_time * steps * processes == effective and at_a_time <= rows
    larger = [n for n in range(at_a_time + 1, rows + 1) if (effective // processes) % n == 0]
    assert not larger, "the largest that fits"


def arguments(**teaching: object) -> tuple[TeachingArguments, TeachingConfig, LoraArguments]:
    return TeachingArguments(train_file="x", **teaching), TeachingConfig(output_dir="out"), LoraArguments()  # type: ignore[arg-type]


def test_settings_follow_the_memory_given_and_the_effective_batch_stays():
    found = []
    for memory in (24, 40, 80):
        teaching, sft, lora = arguments(gpus=TABLE, gpu_memory=memory, effective_batch_size=16)
        fit_to_hardware(teaching, sft, lora)
        found.append((sft.per_device_train_batch_size, sft.gradient_accumulation_steps, sft.gradient_checkpointing))
    assert found == [(2, 8, True), (4, 4, False), (16, 1, False)]


def test_without_a_gpu_the_table_is_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    teaching, sft, lora = arguments(gpus=TABLE, effective_batch_size=8)
    fit_to_hardware(teaching, sft, lora)
    assert (sft.per_device_train_batch_size, sft.gradient_accumulation_steps) == (8, 1)


def test_an_entry_that_sets_no_argument_is_named():
    with pytest.raises(InputError, match="unknown setting 'rows'"):
        fit_to_hardware(*arguments(gpus={24: {"rows": 2}}, gpu_memory=24))


def test_a_quantised_base_needs_a_gpu_and_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="need an NVIDIA GPU"):
        fit_to_hardware(*arguments(gpus={24: {"load_in_4bit": True}}, gpu_memory=24))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes is not installed"):
        check_quantization()


def test_sharded_trainings_that_are_known_to_be_lost_are_refused():
    check_sharding(True, False, "out/checkpoint-4", FSDP2_SINCE)
    check_sharding(False, False, "out/checkpoint-4", "1.9.0")
    check_sharding(False, True, None, "1.9.0")
    with pytest.raises(InputError, match=r"accelerate 1\.9\.0: with FSDP2 .* install accelerate>=1\.15\.0"):
        check_sharding(True, False, None, "1.9.0")
    with pytest.raises(InputError, match=r"out/checkpoint-4: DeepSpeed ZeRO-3 cannot resume an adapter .*7436"):
        check_sharding(False, True, "out/checkpoint-4", "1.15.0")


def test_the_version_that_is_installed_resumes_fsdp2():
    check_sharding(True, False, None, accelerate.__version__)
