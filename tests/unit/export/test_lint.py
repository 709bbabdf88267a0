"""Each rule of the linter finds what it is about, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lint_entries import ELSEWHERE, ENTRIES, INCOMPLETE, STOPPING, write_all
from lint_writers import Write, entry, gpu, instances, stamped
from naiad.export import InvalidExport, LintFinding, ModelNotFound, Repository, lint
from naiad.export._lint.rules import RULES, name_of

EMBEDDED = "24.10"
AUTO = instances(kind="KIND_AUTO", count=1)
BROKEN: Mapping[str, str] = {
    "specific_some_missing": "files.specific_versions",
    "specific_all_missing": "files.a_version_to_serve",
    "latest_none": "files.a_version_to_serve",
    "no_version": "files.a_version_to_serve",
    "leading_zero": "files.version_names files.a_version_to_serve",
    "letter_version": "files.version_names files.a_version_to_serve",
    "ignored_beside": "files.version_names",
    "unfinished_alone": "files.version_names",
    "unfinished_beside": "files.version_names",
    "unfinished_newer": "files.version_names",
    "negative_version": "files.version_names",
    "no_model_file": "files.model_file",
    "filename_not_there": "files.model_file",
    "external_data_missing": "files.external_data",
    "external_data_short": "files.external_data",
    "garbage": "files.readable_graph",
    "empty_file": "files.readable_graph",
    "second_version_broken": "files.readable_graph",
    "labels_missing": "tensors.labels",
    "no_config": "files.config_file",
    "other_name": "config.model_name",
    "unknown_field": "config.syntax",
    "unknown_word": "config.syntax",
    "unknown_type": "config.syntax",
    "syntax": "config.syntax",
    "not_utf8": "config.syntax",
    "two_schedulers": "config.syntax",
    "platform_of_another": "config.backend",
    "platform_made_up": "config.backend",
    "negative_batch": "config.batch_size",
    "metrics_of_later": "config.younger_fields config.model_metrics",
    "no_inputs": "config.complete_tensors",
    "no_outputs": "config.complete_tensors",
    "runtime": "config.runtime",
    "decoupled": "config.ignored_by_onnxruntime",
    "cuda_graphs": "config.ignored_by_onnxruntime",
    "cache_and_decoupled": "config.ignored_by_onnxruntime sequence.response_cache",
    "narrowed_output": "signature.shapes",
    "narrower_than_declared": "signature.shapes",
    "batch_in_dims": "signature.shapes",
    "static_batch": "signature.shapes",
    "wrong_size": "signature.shapes",
    "wrong_output_size": "signature.shapes",
    "wrong_input_type": "signature.data_types",
    "wrong_output_type": "signature.data_types",
    "wrong_input_name": "signature.known_inputs signature.number_of_inputs",
    "wrong_output_name": "signature.known_outputs",
    "missing_input": "signature.number_of_inputs",
    "extra_input": "signature.known_inputs",
    "input_twice": "tensors.unique_names",
    "zero_dim": "tensors.dims",
    "negative_dim": "tensors.dims",
    "no_dims": "tensors.dims",
    "no_type": "tensors.names_and_types",
    "reshape_other_size": "tensors.reshape",
    "reshape_other_dynamic": "tensors.reshape",
    "reshape_to_scalar": "tensors.reshape",
    "scalar_of_two": "signature.shapes",
    "optional_not_said": "signature.optional_inputs",
    "optional_without_default": "signature.optional_inputs",
    "optional_and_batched": "signature.optional_inputs",
    "ragged_of_rows": "signature.shapes",
    "made_type": "tensors.batch_inputs",
    "made_for_nobody": "signature.number_of_inputs signature.batch_input_tensors",
    "made_from_nothing": "tensors.batch_inputs",
    "made_from_two": "tensors.batch_inputs",
    "cut_unknown": "tensors.batch_outputs signature.shapes",
    "scalar_batched": "signature.shapes",
    "made_for_two": "tensors.batch_inputs",
    "image_format": "tensors.formats",
    "shape_tensor": "tensors.formats",
    "preferred_too_large": "scheduling.preferred_batches",
    "preferred_zero": "scheduling.preferred_batches",
    "dynamic_unbatched": "scheduling.batching_without_batches",
    "preferred_unbatched": "scheduling.preferred_batches scheduling.batching_without_batches",
    "no_default_priority": "scheduling.priorities",
    "default_priority_too_high": "scheduling.priorities",
    "policy_for_no_level": "scheduling.priorities",
    "order_and_priorities": "scheduling.preserved_order",
    "order_and_delay": "scheduling.preserved_order",
    "gpu_instance": "scheduling.instance_kinds",
    "auto_with_gpus": "scheduling.instance_kinds",
    "cpu_with_gpus": "scheduling.instance_kinds",
    "model_with_gpus": "scheduling.instance_kinds",
    "profile": "scheduling.instance_profiles",
    "sequence_oldest_too_large": "sequence.oldest",
    "sequence_cached": "sequence.response_cache",
    "sequence_other_name": "signature.known_inputs",
    "sequence_other_type": "signature.control_tensors",
    "sequence_other_shape": "signature.control_tensors",
    "sequence_no_values": "sequence.control_values signature.control_tensors",
    "sequence_one_value": "sequence.control_values",
    "sequence_two_pairs": "sequence.control_values",
    "sequence_without_control": "signature.number_of_inputs",
    "sequence_control_as_input": "signature.number_of_inputs",
    "sequence_slots": "sequence.direct",
    "correlation_of_floats": "sequence.control_values",
    "state_of_nothing": "signature.states",
    "state_of_other_size": "sequence.initial_states",
    "warm_batch_too_large": "warmup.warmup_batches",
    "warm_batch_zero": "warmup.warmup_batches",
    "warm_extra_input": "warmup.warmup_inputs",
    "warm_missing_input": "warmup.warmup_inputs",
    "warm_other_type": "warmup.warmup_tensors",
    "warm_other_shape": "warmup.warmup_tensors",
    "warm_with_batch": "warmup.warmup_tensors",
    "warm_dynamic": "warmup.warmup_tensors",
    "warm_no_data": "warmup.warmup_data",
    "warm_file_missing": "warmup.warmup_data",
    "warm_file_short": "warmup.warmup_data",
    "unknown_parameter": "parameters.known_keys",
    "execution_mode": "parameters.parameter_values",
    "arena": "parameters.parameter_values",
    "conv_search": "parameters.parameter_values",
    "tensorrt_unknown_key": "accelerators.tensorrt_keys",
    "tensorrt_unknown_precision": "accelerators.tensorrt_keys",
    "unknown_gpu_accelerator": "accelerators.gpu_names",
    "unknown_cpu_accelerator": "accelerators.cpu_names",
    "openvino": "accelerators.cpu_names",
    "operator_library": "parameters.operator_libraries",
    "unknown_domain": "formats.domains",
    "python_syntax": "backends.python_class",
    "python_no_class": "backends.python_class",
    "python_raises": "backends.python_class",
    "python_no_execute": "backends.python_class",
    "python_environment": "backends.python_environment",
    "ensemble_platform": "ensemble.consistent",
    "ensemble_backend": "config.backend",
    "ensemble_instances": "ensemble.consistent",
    "ensemble_optimized": "ensemble.consistent",
    "ensemble_warm": "ensemble.consistent",
    "ensemble_no_steps": "ensemble.complete_steps",
    "ensemble_no_scheduling": "ensemble.consistent",
    "ensemble_no_inputs": "ensemble.complete_steps ensemble.used_tensors ensemble.mapped_tensors",
    "ensemble_unknown": "ensemble.known_models",
    "ensemble_unused_input": "ensemble.used_tensors",
    "ensemble_unwritten_output": "ensemble.used_tensors",
    "ensemble_left_over": "ensemble.used_tensors",
    "ensemble_written_twice": "ensemble.written_once",
    "ensemble_circle": "ensemble.used_tensors",
    "ensemble_of_itself": "ensemble.no_circle",
    "ensemble_other_type": "ensemble.equal_tensors",
    "ensemble_other_shape": "ensemble.equal_tensors",
    "ensemble_larger_batch": "ensemble.batch_sizes",
    "ensemble_wrong_key": "ensemble.mapped_tensors",
    "ensemble_wrong_output_key": "ensemble.mapped_tensors",
    "ensemble_input_left_out": "ensemble.mapped_tensors",
    "ensemble_other_version": "ensemble.known_models",
    "ensemble_broken_part": "ensemble.equal_tensors ensemble.models_that_load",
    "ensemble_no_version": "files.a_version_to_serve",
    "newer_opset": "formats.opset",
    "newer_format": "formats.ir_version",
    "bfloat16": "signature.data_types",
}
"""The rules that entries break; the others break none. Which do not load is compared with the real server elsewhere."""
BROKEN_ELSEWHERE: Mapping[str, str] = {
    ".hidden": "files.directory_name",
    "two words": "files.directory_name",
    "capability": "files.capability_files",
    "labels_outside": "tensors.labels",
    "priority": "config.ignored_by_onnxruntime",
    "metrics": "config.model_metrics",
    "agents": "config.agents",
    "unknown_backend": "config.backend",
    "container_backend": "config.backend",
    "no_backend": "config.backend",
    "strings_and_bfloat16": "tensors.bfloat16_beside_strings",
    "no_cpu_operator": "formats.cpu_operators",
    "waits": "scheduling.queue_delay",
    "own_cores": "scheduling.instances_and_threads",
    "two_scopes": "scheduling.rate_limits",
    "nameless_control": "sequence.control_names signature.number_of_inputs",
    "control_twice": "sequence.control_names signature.number_of_inputs",
    "strategy_and_sequence": "sequence.batching_strategy",
    "strategy_not_there": "sequence.batching_strategy",
    "python_state": "sequence.python_states",
    "python_accelerated": "accelerators.ignored_elsewhere",
    "session_parameter": "parameters.known_keys",
    "long_number": "parameters.parameter_values",
    "negative_threads": "parameters.negative_threads",
    "threads_between": "parameters.parallel_mode",
    "input_memory_word": "gpus.input_memory",
    "python_input_memory_word": "gpus.input_memory",
    "gpu_parameters_words": "gpus.memory_words",
    "gpu_parameters_on_cpus": "gpus.memory_without_a_gpu",
    "gpu_parameters_of_python": "gpus.memory_without_a_gpu",
    "cuda_graph_of_lengths": "gpus.graphs_of_fixed_shapes",
    "cuda_graph_of_sequences": "gpus.graphs_of_sequences",
    "cuda_graph_twice": "gpus.graphs_twice",
    "tensorrt_caches": "tensorrt.caches",
    "tensorrt_int8": "tensorrt.int8",
    "tensorrt_dla_in_fp32": "tensorrt.dla",
    "tensorrt_profile_backwards": "tensorrt.profile_order",
    "tensorrt_profile_too_small": "tensorrt.profile_batch",
    "tensorrt_alone": "scheduling.instances_and_threads accelerators.tensorrt_device",
    "tensorrt_value": "accelerators.tensorrt_keys",
    "tensorrt_profile_in_part": "accelerators.tensorrt_profiles",
    "tensorrt_profile_of_nothing": "accelerators.tensorrt_profiles",
    "cuda_key": "accelerators.cuda_keys",
    "cuda_overwritten": "accelerators.cuda_keys",
    "package_batched": "backends.torch_scheduling",
    "package_of_sequences": "backends.torch_scheduling",
    "package_damaged": "backends.torch_package",
    "package_of_names": "backends.torch_names",
    "package_of_strings": "backends.torch_names",
    "package_without_outputs": "backends.torch_names",
    "own_operator": "formats.domains",
    "cached_ensemble": "ensemble.response_cache",
    "script_unreadable": "calls.readable_calls",
    "script_of_nobody": "calls.known_calls",
    "script_of_itself": "calls.no_endless_calls",
    "ensemble_of_gpus": "ensemble.models_that_load",
}
"""The same, for the release that is deployed."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lint") / "models"
    write_all(path, ENTRIES)
    return path


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "models"
    write_all(path, ELSEWHERE)
    return path


def written(tmp_path: Path, write: Write, name: str = "entry") -> Path:
    """The directory of one entry."""
    write_all(tmp_path / "models", {name: write})
    return tmp_path / "models" / name


def rules(findings: tuple[LintFinding, ...]) -> str:
    return " ".join(dict.fromkeys(found.rule for found in findings))


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_breaks_its_rules_and_no_other(repository: Path, name: str) -> None:
    """A bad entry is found by the rules that are about it, a good one by none."""
    assert rules(lint(repository / name, target=EMBEDDED)) == BROKEN.get(name, "")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_entry_for_other_servers_breaks_its_rules_and_no_other(elsewhere: Path, name: str) -> None:
    """The same holds for what only a GPU, another backend or a closer look would tell."""
    assert rules(lint(elsewhere / name)) == BROKEN_ELSEWHERE.get(name, "")


def test_every_rule_is_broken_by_an_entry() -> None:
    """No rule is without a test."""
    elsewhere = {"files.version_names", "parameters.device_initializers"}  # below
    broken = {rule for table in (BROKEN, BROKEN_ELSEWHERE) for found in table.values() for rule in found.split()}
    assert {name_of(rule) for rule in RULES} - broken - elsewhere == set()


def test_every_finding_says_what_follows_where_and_what_to_do(repository: Path, elsewhere: Path) -> None:
    """A finding has a place, a sentence and a fix, is an error or a warning, and can be written as JSON."""
    findings = [*lint(repository, target=EMBEDDED), *lint(elsewhere)]
    assert {found.severity for found in findings} == {"error", "warning"}
    for found in findings:
        assert found.message
        assert found.fix
        assert found.model
        assert f"{found.message}; {found.fix}" in str(found)
        assert json.loads(json.dumps(found.to_dict()))["severity"] == found.severity


@pytest.mark.parametrize(
    ("write", "rule", "since"),
    [
        (entry(stamped(opset=22)), "formats.opset", "25.03"),
        (entry(stamped(ir_version=11)), "formats.ir_version", "25.08"),
        (ENTRIES["bfloat16"], "signature.data_types", "26.03"),
        (ELSEWHERE["tensorrt_bfloat16"], "accelerators.tensorrt_keys", "26.02"),
        (ELSEWHERE["device_initializers"], "parameters.device_initializers", "25.02"),
        (
            entry(**gpu("cuda", enable_cuda_graph="1"), **AUTO),
            "accelerators.gpu_names",
            "24.06",
        ),
        (
            entry(**gpu("tensorrt", trt_cuda_graph_enable="1"), **AUTO),
            "accelerators.tensorrt_keys",
            "24.04",
        ),
        (ELSEWHERE["package"], "backends.torch_package", "26.05"),
    ],
)
def test_what_a_release_does_not_have_is_found_for_it(tmp_path: Path, write: Write, rule: str, since: str) -> None:
    """An entry that the deployed release loads is refused for an older one."""
    directory = written(tmp_path, write)
    year, month = map(int, since.split("."))
    before = f"{year}.{month - 1:02}" if month > 1 else f"{year - 1}.12"
    assert rule in rules(lint(directory, target=before))
    assert rule not in rules(lint(directory, target=since))
    assert rule not in rules(lint(directory))


def test_a_younger_field_is_unknown_to_an_older_release(repository: Path) -> None:
    """A field of the configuration is refused for releases before the one that brought it."""
    assert "config.younger_fields" in rules(lint(repository / "metrics_of_later", target="24.10"))
    assert "config.younger_fields" not in rules(lint(repository / "metrics_of_later", target="24.11"))


def test_a_server_that_completes_needs_less(tmp_path: Path) -> None:
    """What is left out is completed from the graph, with auto-complete only."""
    write_all(tmp_path / "models", INCOMPLETE)
    sound = {name for name in INCOMPLETE if not lint(tmp_path / "models" / name, auto_complete=True)}
    assert sound == {"backend_alone", "inputs_alone", "static"}
    (found,) = lint(tmp_path / "models" / "nothing", auto_complete=True)
    assert found.rule == "scheduling.instances_and_threads"  # Triton's own default
    assert {found.rule for found in lint(tmp_path / "models" / "nothing")} == {"files.config_file"}


def test_a_number_that_ends_the_server_is_said(tmp_path: Path) -> None:
    """A version of twenty digits is worse than one that does not load."""
    write_all(tmp_path / "models", STOPPING)
    (found,) = lint(tmp_path / "models")
    assert (found.rule, found.effect, found.severity) == ("files.version_names", "stops the server", "error")


def test_a_repository_is_linted_as_a_whole(tmp_path: Path) -> None:
    """Every directory is taken for a model, hidden ones too, as Triton does; files are not."""
    write_all(tmp_path / "models", {"good": entry(), "bad": entry(inputs={"image": "FP32[3]"})})
    (tmp_path / "models" / ".git").mkdir()
    (tmp_path / "models" / "journal.jsonl").write_text("{}")
    assert {found.model for found in lint(tmp_path / "models")} == {"bad", ".git"}
    repo = Repository(tmp_path / "models")
    assert repo.lint("good") == ()
    assert {found.model for found in repo.lint("good", "bad")} == {"bad"}
    assert repo.lint() == lint(tmp_path / "models")


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    """A model, a directory or a release that is not there is named."""
    directory = written(tmp_path, entry())
    with pytest.raises(ModelNotFound, match=r"no model 'nobody'.*it has: entry"):
        Repository(directory.parent).lint("nobody")
    with pytest.raises(ModelNotFound, match="no directory"):
        lint(tmp_path / "nowhere")
    with pytest.raises(InvalidExport, match="no Triton release"):
        lint(directory, target="24.13")


def test_similar_words_are_offered(tmp_path: Path, repository: Path) -> None:
    """A misspelt field, word or key is answered with the one that was probably meant."""
    assert "did you mean max_batch_size?" in str(lint(repository / "unknown_field")[0])
    assert "did you mean KIND_GPU?" in str(lint(repository / "unknown_word")[0])
    assert "use one of TYPE_BOOL" in str(lint(repository / "unknown_type")[0])
    assert "did you mean intra_op_thread_count?" in str(lint(repository / "unknown_parameter")[0])


def test_gpu_settings_are_about_instances_on_gpus(tmp_path: Path) -> None:
    """A wrong value of TensorRT's stops a load only where an instance may use a GPU."""
    wrong = gpu("tensorrt", trt_dla_core="first")
    here = written(tmp_path / "here", entry(**wrong, **instances(kind="KIND_CPU", count=1)))
    there = written(tmp_path / "there", entry(**wrong, **AUTO))
    assert lint(here) == ()
    assert [found.effect for found in lint(there)] == ["does not load on a GPU"]
