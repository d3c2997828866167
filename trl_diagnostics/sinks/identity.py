# Copyright 2020-2026 The HuggingFace Team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A model, tokenizer or data set goes in, what tells it from another one comes out, without changing or loading it."""

import hashlib
from collections import Counter
from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .json_value import digest, json_value


TENSORS, ELEMENTS = 64, 16  # looked at for the fingerprint of weights, and of each of them
ROWS = 4096  # looked at for the hash of a data set's content
BYTES = 2**26  # of them, where rows are pictures or books
LISTED = 16  # of a list
TOKENS = 64  # looked at for the hash of a vocabulary
# `save_pretrained` writes the last four; a model that was loaded has them and one that was built has not
CONFIG_NOISE = {"use_cache", "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


def model_identity(model: torch.nn.Module | None) -> dict[str, Any] | None:
    """
    What tells a model from another one.

    Args:
        model (`torch.nn.Module`, *optional*):
            Model being trained: wrapped, sharded, quantised or with adapters as it may be.

    Returns:
        `dict` or `None`: `class`, `base_class`, `name_or_path`, `commit` (on the Hub), `config_hash`, `parameters`,
        `trainable_parameters`, `trainable_share`, `dtypes` (elements by dtype), `devices`, `quantization`, `adapters`
        and `fingerprint`. JSON values.
    """
    if model is None:
        return None
    from transformers import PreTrainedModel

    base = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    adapters = next((vars(module)["peft_config"] for module in model.modules() if "peft_config" in vars(module)), {})
    config = {} if base is None else json_value(base.config.to_dict())
    identity = {
        "class": type(model).__name__,
        "base_class": None if base is None else type(base).__name__,
        "name_or_path": None if base is None else base.name_or_path,
        "commit": None if base is None else vars(base.config).get("_commit_hash"),
        "config_hash": digest({key: value for key, value in config.items() if key not in CONFIG_NOISE}),
        "quantization": config.get("quantization_config"),
        "adapters": json_value(adapters),
    }
    return identity | _counts(model) | {"fingerprint": fingerprint(model)}


def _counts(model: torch.nn.Module) -> dict[str, Any]:
    total, trainable = 0, 0
    dtypes: Counter[str] = Counter()
    devices = set()
    for parameter in model.parameters():
        size = _size(parameter)
        total += size
        trainable += size if parameter.requires_grad else 0
        dtypes[str(parameter.dtype).removeprefix("torch.")] += size
        devices.add(str(parameter.device))
    return {
        "parameters": total,
        "trainable_parameters": trainable,
        "trainable_share": trainable / total if total else 0.0,
        "dtypes": dict(dtypes),
        "devices": sorted(devices),
    }


def _size(parameter: torch.nn.Parameter) -> int:
    """How many elements a parameter has on all ranks together, as the model sees it."""
    extra = vars(parameter)
    if "ds_numel" in extra:  # DeepSpeed ZeRO-3 leaves an empty tensor
        return extra["ds_numel"]
    if "_unpadded_unsharded_size" in extra:  # the flat parameters of FSDP 1
        return extra["_unpadded_unsharded_size"].numel()
    if type(parameter).__name__ == "Params4bit":  # bitsandbytes packs two into a byte
        return parameter.numel() * 2 * parameter.element_size()
    return parameter.numel()


def fingerprint(model: torch.nn.Module) -> dict[str, Any]:
    """
    A cheap hash of the weights: a few elements of a few tensors, at places that depend on nothing but their shapes.

    Nothing is gathered, copied or dequantised. Of a sharded model the part on this rank is read, so hashes compare
    within one world size. On a GPU it costs one transfer of a few kilobytes.

    Args:
        model (`torch.nn.Module`):
            Model being trained.

    Returns:
        `dict`: `trainable` and `frozen`, 16 hexadecimal digits or `None` where there is no such tensor; `sharded`,
        whether only a part was read; `unread`, how many of the chosen tensors have no values here (meta tensors).
    """
    named = list(model.named_parameters())
    # quantised weights may be buffers; 1-dimensional ones are running statistics
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if buffer.ndim > 1]
    trainable = _spread([pair for pair in named if pair[1].requires_grad], TENSORS)
    frozen = _spread([pair for pair in named if not pair[1].requires_grad] + buffers, TENSORS)
    chosen = [*trainable, *frozen]
    values = _values([tensor for _, tensor in chosen])
    shapes = [f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode() for name, tensor in chosen]
    return {
        "trainable": _hash(shapes[: len(trainable)], values[: len(trainable)]),
        "frozen": _hash(shapes[len(trainable) :], values[len(trainable) :]),
        "sharded": any(_is_sharded(parameter) for _, parameter in named),
        "unread": values.count(b""),
    }


def _hash(shapes: list[bytes], values: list[bytes]) -> str | None:
    parts = (shape + value for shape, value in zip(shapes, values, strict=True))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16] if shapes else None


def _spread(items: Sequence, count: int) -> Sequence:
    """At most `count` items, from the first to the last at even distances."""
    if len(items) <= count:
        return items
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]


def _is_sharded(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor) or not {"ds_numel", "_unpadded_unsharded_size"}.isdisjoint(vars(tensor))


def _values(tensors: list[torch.Tensor]) -> list[bytes]:
    """Some elements of each tensor as bytes, with one transfer per device."""
    samples = [_sample(tensor) for tensor in tensors]
    by_device: dict[torch.device, list[int]] = {}
    for i, sample in enumerate(samples):
        by_device.setdefault(sample.device, []).append(i)
    values = [b""] * len(samples)
    for indices in by_device.values():
        data = torch.cat([samples[i] for i in indices]).cpu().numpy().tobytes()
        for i in indices:
            values[i], data = data[: samples[i].numel()], data[samples[i].numel() :]
    return values


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Elements of the part of a tensor that is on this rank, as bytes."""
    local = vars(tensor).get("ds_tensor", tensor).data
    while is_traceable_wrapper_subclass(local):  # DTensor and the quantised tensors of torchao
        local = getattr(local, local.__tensor_flatten__()[0][0])
    if local.is_meta or not local.numel():
        return torch.empty(0, dtype=torch.uint8)
    most = ELEMENTS if local.ndim < 2 else 4
    places = tuple(slice(None, None, -(-size // most)) for size in local.shape[-2:])
    few = local[(0,) * (local.ndim - 2) + places]
    return few.contiguous().reshape(-1).view(torch.uint8)


def tokenizer_identity(processing_class: Any) -> dict[str, Any] | None:
    """
    What tells a tokenizer from another one.

    Args:
        processing_class (`PreTrainedTokenizerBase`, `ProcessorMixin` or `None`):
            As the trainer got it.

    Returns:
        `dict` or `None`: `class`, `processor` (class around the tokenizer), `name_or_path`, `vocab_size`, `length` (with
        added tokens), `special_tokens` (by name, with their ids), `vocabulary_hash` (of a few entries),
        `chat_template_hash`, `padding_side`, `truncation_side` and `model_max_length`. JSON values. Of what is no
        tokenizer the class only.
    """
    if processing_class is None:
        return None
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    processor = processing_class if isinstance(processing_class, ProcessorMixin) else None
    tokenizer = vars(processor).get("tokenizer") if processor else processing_class
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return {"class": type(processing_class).__name__}
    template = (processor and processor.chat_template) or tokenizer.chat_template
    ids = _spread(range(len(tokenizer)), TOKENS)
    special = json_value(tokenizer.special_tokens_map)
    names = [name for name, token in special.items() if isinstance(token, str)]
    return {
        "class": type(tokenizer).__name__,
        "processor": type(processor).__name__ if processor else None,
        "name_or_path": tokenizer.name_or_path,
        "vocab_size": tokenizer.vocab_size,
        "length": len(tokenizer),
        "special_tokens": special,
        "special_token_ids": {name: tokenizer.convert_tokens_to_ids(special[name]) for name in names},
        "vocabulary_hash": digest(json_value(tokenizer.convert_ids_to_tokens(list(ids)))),
        "chat_template_hash": digest(json_value(template)) if template else None,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_max_length": tokenizer.model_max_length,
    }


def dataset_identity(dataset: Any) -> dict[str, Any] | None:
    """
    What tells a data set from another one. No row of a data set of user code, and none of a stream, is read.

    Args:
        dataset (`datasets.Dataset`, `datasets.IterableDataset`, `torch.utils.data.Dataset`, `list`, `dict` or `None`):
            As the trainer or its data loader has it; a dictionary has one data set per name.

    Returns:
        `dict` or `None`: `class`, `name`, `config`, `split`, `fingerprint` (as `datasets` computes it, from the steps
        that made the data set), `rows`, `columns`, `bytes` (in memory; the order of the rows does not change them) and
        `sample_hash`, a hash of up to 4,096 rows from the first to the last, in the order in which they are. What is not
        known is `None`. JSON values; of a dictionary one by name.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        return {str(name): dataset_identity(one) for name, one in dataset.items()}
    import datasets
    from accelerate.data_loader import IterableDatasetShard

    while isinstance(dataset, IterableDatasetShard):
        dataset = dataset.dataset
    keys = ("name", "config", "split", "fingerprint", "rows", "columns", "bytes", "sample_hash")
    known: dict[str, Any] = dict.fromkeys(keys)
    known["class"] = type(dataset).__name__
    if isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        known |= {"name": dataset.info.dataset_name, "config": dataset.info.config_name}
        known |= {"split": dataset.split and str(dataset.split), "columns": dataset.column_names}
    if isinstance(dataset, Sized):
        known["rows"] = len(dataset)
    if isinstance(dataset, datasets.Dataset):
        known |= {"fingerprint": dataset._fingerprint, "bytes": dataset.data.nbytes}
        known["sample_hash"] = _content_hash(dataset)
    elif isinstance(dataset, list):
        known["sample_hash"] = digest(json_value(_spread(dataset, LISTED)))
    return known


def _content_hash(dataset: Any) -> str:
    """Of many rows as they are stored: neither formatted nor transformed, which may be code of the user."""
    import pyarrow as pa
    from datasets.formatting import query_table

    size = dataset.data.nbytes / max(dataset.data.num_rows, 1)
    places = list(_spread(range(len(dataset)), max(16, min(ROWS, int(BYTES / max(size, 1))))))
    table = query_table(dataset.data, places, indices=dataset._indices) if places else dataset.data.table
    # a copy is the same however the rows were cut into chunks and files
    table = table.replace_schema_metadata(None).take(pa.array(range(len(places)), pa.int64())).combine_chunks()
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(stream.getvalue()).hexdigest()[:16]
